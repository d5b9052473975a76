// Text generation with a cache: prompt in, tokens out as they are made.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "models/decoder.h"
#include "tokenizer/tokenizer.h"
#include "train/sampling.h"

namespace lh {

struct GenerateOptions {
  int64_t max_tokens = 64;  // new tokens at most
  SamplingOptions sampling;
  uint64_t seed = 1;
  bool stop_at_end_of_text = true;
};

struct GenerateResult {
  std::vector<TokenId> tokens;  // the new ones
  int64_t prompt_tokens = 0;
  double prompt_seconds = 0;
  double decode_seconds = 0;  // of all but the first new token
  int64_t cache_bytes = 0;  // at the end: caches of self-pruning layers grow
  KeptKeys kept_keys;       // of those layers, at the end
};

/// Continues `prompt` (an empty one starts a document). `on_text` receives whole characters; it
/// returns false to stop. ConfigError when prompt and max_tokens exceed the model's max_position.
GenerateResult generate(const Decoder& model, const Tokenizer& tokenizer, const std::string& prompt,
                        const GenerateOptions& options,
                        const std::function<bool(const std::string& text)>& on_text);

}  // namespace lh
