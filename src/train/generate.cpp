#include "train/generate.h"

#include "base/timer.h"

namespace lh {

GenerateResult generate(const Decoder& model, const Tokenizer& tokenizer, const std::string& prompt,
                        const GenerateOptions& options,
                        const std::function<bool(const std::string& text)>& on_text) {
  check_sampling(options.sampling);
  std::vector<TokenId> tokens;
  // In training every document follows an end-of-text token, which so begins the prompt.
  if (const auto end = tokenizer.end_of_text()) tokens.push_back(*end);
  tokenizer.encode(prompt, tokens);
  if (tokens.empty())
    fail<ConfigError>(
        "the prompt is empty and the tokenizer has no end-of-text token to begin with");
  GenerateResult result;
  result.prompt_tokens = static_cast<int64_t>(tokens.size());
  const int64_t longest = result.prompt_tokens + options.max_tokens;
  if (longest > model.config().max_position)
    fail<ConfigError>("{} prompt tokens and {} new ones exceed the model's max_position {}",
                      result.prompt_tokens, options.max_tokens, model.config().max_position);

  DecoderCache cache = model.make_cache(longest);
  Philox random(options.seed);
  StreamDecoder text(tokenizer);
  Timer timer;
  Tensor input = Tensor::from(tokens, {result.prompt_tokens}).to(model.device());
  bool wanted = true;
  for (int64_t made = 0; wanted && made < options.max_tokens; ++made) {
    const Tensor logits = model.next_logits(input, cache).to(kCpuDevice);
    if (made == 0) {
      result.prompt_seconds = timer.seconds();
      timer.restart();
    }
    const TokenId next = sample_token(logits.span<float>(), options.sampling, random);
    result.tokens.push_back(next);
    result.decode_seconds = timer.seconds();
    if (options.stop_at_end_of_text && tokenizer.end_of_text() == next) break;
    wanted = on_text(text.push(next));
    input = Tensor::from(std::vector<TokenId>{next}, {1}).to(model.device());
  }
  if (wanted) on_text(text.finish());
  result.cache_bytes = cache.bytes();
  result.kept_keys = cache.kept_keys();
  return result;
}

}  // namespace lh
