// Tokenizes segments of documents on several threads and hands the results back in the order in
// which they were submitted, so that the output does not depend on the number of threads.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "data/document_splitter.h"

namespace lh {

enum class Part { kTrain = 0, kValid = 1, kByHash = 2 };  // kByHash: JSONL, once its text is known

struct EncodeItem {
  Segment segment;
  Part part = Part::kTrain;
  bool jsonl = false;
  std::shared_ptr<const std::string> file;  // its name, for errors
};

/// The tokens of a list of items, for the training and the validation shard.
struct Encoded {
  struct Run {  // of one document; a document's runs may lie in several results
    int64_t tokens;
    int64_t text_bytes;
    bool ends_document;
  };
  struct Output {
    std::vector<TokenId> tokens;
    std::vector<Run> runs;
  };
  std::array<Output, 2> outputs;  // by Part
  int64_t empty_documents = 0;
  int64_t bad_lines = 0;
};

class DocumentEncoder {
 public:
  struct Options {
    int threads = 1;
    std::string jsonl_field = "text";
    bool skip_bad_lines = false;  // else a bad line is an IoError
    double valid_fraction = 0;    // of documents, for Part::kByHash
    uint64_t seed = 0;
  };

  /// `tokenizer` outlives the encoder.
  DocumentEncoder(const Tokenizer& tokenizer, const Options& options);
  ~DocumentEncoder();

  void submit(std::vector<EncodeItem> items);
  /// Waits for the oldest submission not yet taken, and throws what its work threw.
  Encoded take();
  int64_t in_flight() const;  // submitted and not taken

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Where a document belongs when `valid_fraction` of all are held out: a pure function of its
/// first segment and the seed, so that copies of a text are never on both sides.
Part part_by_hash(std::string_view text, uint64_t seed, double valid_fraction);

}  // namespace lh
