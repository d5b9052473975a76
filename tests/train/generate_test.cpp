#include "train/generate.h"

#include <doctest/doctest.h>

#include "tokenizer/tokenizer.h"
#include "train_support.h"

namespace {

using namespace lh;
using namespace lh::test;

std::vector<double> recomputed_logits(const Decoder& model, const Document& tokens) {
  const GradMode off(false);
  const auto rows = static_cast<int64_t>(tokens.size());
  const Variable hidden = model.forward(Tensor::from(tokens, {rows}),
                                        SequenceLayout::packed(std::vector<int64_t>{0, rows}));
  return to_doubles(model.logits(Variable(hidden.value().slice(0, rows - 1, rows))));
}

TEST_CASE("logits through the cache equal recomputation far beyond the window") {
  for (const auto& [dtype, tolerance] :
       {std::pair{DType::kF64, 1e-12}, {DType::kF32, 2e-5}, {DType::kBF16, 0.1}}) {
    const Decoder model(tiny_model(), dtype, 5);
    const Document tokens = random_document(60, 40, 9);
    // Prompts shorter and longer than window and sinks, then one token at a time.
    for (const int64_t prompt : {1, 2, 5, 7, 30}) {
      DecoderCache cache = model.make_cache(60);
      int64_t fed = 0;
      while (fed < 60) {
        const int64_t count = fed == 0 ? prompt : 1;
        const Document part(tokens.begin() + fed, tokens.begin() + fed + count);
        const auto got = to_doubles(model.next_logits(Tensor::from(part, {count}), cache));
        fed += count;
        const auto want = recomputed_logits(model, Document(tokens.begin(), tokens.begin() + fed));
        double worst = 0;
        for (size_t i = 0; i < want.size(); ++i)
          worst = std::max(worst, std::abs(got[i] - want[i]));
        CHECK_MESSAGE(worst < tolerance, dtype_name(dtype), " prompt ", prompt, " at ", fed);
      }
    }
  }
}

TEST_CASE("a cache that is full says so") {
  const Decoder model(tiny_model(), DType::kF32, 5);
  DecoderCache cache = model.make_cache(3);
  model.next_logits(Tensor::from(Document{1, 2}, {2}), cache);
  CHECK_THROWS_WITH(model.next_logits(Tensor::from(Document{1, 2}, {2}), cache),
                    doctest::Contains("the cache was made for 3 tokens"));
}

TEST_CASE("generation is a function of model prompt options and seed") {
  const auto tokenizer = make_byte_tokenizer();
  ModelConfig config = tiny_model(tokenizer->vocab_size());
  const Decoder model(config, DType::kF32, 5);
  const auto make = [&](const std::string& prompt, uint64_t seed, int64_t tokens = 40) {
    std::string text;
    GenerateOptions options;
    options.max_tokens = tokens;
    options.seed = seed;
    options.stop_at_end_of_text = false;
    const GenerateResult result =
        generate(model, *tokenizer, prompt, options, [&](const std::string& piece) {
          text += piece;
          return true;
        });
    CHECK(static_cast<int64_t>(result.tokens.size()) == tokens);
    CHECK(result.cache_bytes > 0);
    // The end-of-text token in front of every document comes before the prompt.
    CHECK(result.prompt_tokens == static_cast<int64_t>(prompt.size()) + 1);
    return std::pair{result.tokens, text};
  };
  CHECK(make("hello", 1) == make("hello", 1));
  CHECK(make("hello", 1).first != make("hello", 2).first);
  CHECK(make("hello", 1).first != make("jello", 1).first);
  make("", 1);
}

TEST_CASE("generation with self-pruning layers says how many of their keys are kept") {
  const auto tokenizer = make_byte_tokenizer();
  ModelConfig config = tiny_model(tokenizer->vocab_size());
  GenerateOptions options;
  options.max_tokens = 40;
  options.stop_at_end_of_text = false;
  const auto kept = [&] {
    const Decoder model(config, DType::kF32, 5);
    return generate(model, *tokenizer, "hello", options, [](const std::string&) { return true; })
        .kept_keys;
  };
  CHECK(kept().all == 0);
  const int64_t seen = 6 + 39;  // all but the last token, per kv head
  config.mixers = {{"self", {.kind = "sp_kv", .window = 4, .global_kv_heads = {0}}}};
  config.schedule = {"self"};
  const KeptKeys keys = kept();
  const int64_t heads = config.resolved_num_kv_heads();
  CHECK(keys.all == seen * heads * config.num_layers);
  CHECK(keys.kept == (seen + 4 * (heads - 1)) * config.num_layers);
  CHECK(keys.dense_bytes == keys.all * 2 * config.resolved_head_dim() * 4);
  CHECK(keys.bytes > 0);
}

TEST_CASE("the first logits after a prompt are those of a document that begins with it") {
  const auto tokenizer = make_byte_tokenizer();
  const Decoder model(tiny_model(tokenizer->vocab_size()), DType::kF32, 5);
  GenerateOptions options;
  options.max_tokens = 1;
  options.sampling.temperature = 0;
  options.stop_at_end_of_text = false;
  const auto result =
      generate(model, *tokenizer, "ab", options, [](const std::string&) { return true; });
  const auto logits =
      recomputed_logits(model, {static_cast<int32_t>(*tokenizer->end_of_text()), 'a', 'b'});
  CHECK(result.tokens[0] == std::max_element(logits.begin(), logits.end()) - logits.begin());
}

TEST_CASE("the callback can stop and too long requests are refused") {
  const auto tokenizer = make_byte_tokenizer();
  const Decoder model(tiny_model(tokenizer->vocab_size()), DType::kF32, 5);
  GenerateOptions options;
  options.stop_at_end_of_text = false;
  int calls = 0;
  const auto result =
      generate(model, *tokenizer, "x", options, [&](const std::string&) { return ++calls < 3; });
  CHECK(result.tokens.size() == 3);
  options.max_tokens = 128;
  CHECK_THROWS_WITH_AS(
      generate(model, *tokenizer, "x", options, [](const std::string&) { return true; }),
      doctest::Contains("max_position 128"), ConfigError);
}

}  // namespace
