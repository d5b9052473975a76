// Learns a byte-level BPE vocabulary from text (Sennrich et al. 2016). The result is a function of
// the texts alone, not of their order or of the number of threads, and equals what the HF
// tokenizers library learns with its BpeTrainer over the byte alphabet.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace lh {

struct BpeTrainOptions {
  int64_t vocab_size = 8192;     // special tokens and the 256 bytes included
  std::string pattern = "gpt2";  // gpt2, llama3, qwen2, qwen2.5, qwen3
  std::vector<std::string> special_tokens = {"<|endoftext|>"};  // ids 0, 1, ... in this order
  int64_t min_frequency = 2;   // a pair that occurs less often is not merged
  bool normalize_nfc = false;  // as Qwen does; decode(encode(x)) is then NFC(x)
  int threads = 1;             // for counting words; 0: all of the machine's
};

class BpeTrainer {
 public:
  /// Throws ConfigError for an unknown pattern, a vocabulary too small for the bytes and special
  /// tokens, and repeated or empty special tokens.
  explicit BpeTrainer(BpeTrainOptions options);
  ~BpeTrainer();

  /// Adds one document; its ill-formed UTF-8 is left out. Documents are held until there is work
  /// for every thread, then counted.
  void add_text(std::string_view text);

  /// Called now and then with the tokens learned so far and the number wanted.
  using Progress = std::function<void(int64_t done, int64_t total)>;

  /// The vocabulary may stay smaller than asked when no pair is frequent enough.
  std::unique_ptr<Tokenizer> train(const Progress& progress = {});

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lh
