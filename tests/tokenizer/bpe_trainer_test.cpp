// Training: the merges equal those that the HF tokenizers library learns on the same documents.
#include "tokenizer/bpe_trainer.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/philox.h"
#include "tokenizer/golden_files.h"

namespace {

using Json = nlohmann::json;

std::vector<std::string> documents() {
  std::string corpus = lh::read_file(lh::testing::golden_path("corpus.txt"));
  std::vector<std::string> parts;
  for (size_t at = 0; at != corpus.npos;) {
    const size_t end = corpus.find("\n\n", at);
    parts.push_back(corpus.substr(at, end - at));
    at = end == corpus.npos ? end : end + 2;
  }
  return parts;
}

std::unique_ptr<lh::Tokenizer> train(const lh::BpeTrainOptions& options,
                                     const std::vector<std::string>& texts) {
  lh::BpeTrainer trainer(options);
  for (const std::string& text : texts) trainer.add_text(text);
  return trainer.train();
}

/// merges as "left right", in either spelling of the file.
std::vector<std::string> merges_of(const Json& document) {
  std::vector<std::string> merges;
  for (const Json& merge : document["model"]["merges"])
    merges.push_back(merge.is_string()
                         ? merge.get<std::string>()
                         : merge[0].get<std::string>() + " " + merge[1].get<std::string>());
  return merges;
}

TEST_CASE("training learns the merges and ids that the reference library learns") {
  for (const std::string pattern : {"gpt2", "llama3", "qwen2"}) {
    CAPTURE(pattern);
    lh::BpeTrainOptions options;
    options.vocab_size = 1000;
    options.pattern = pattern;
    options.normalize_nfc = pattern == "qwen2";
    const Json ours = Json::parse(train(options, documents())->save_json());
    const Json theirs = Json::parse(lh::read_file(lh::testing::golden_path(pattern + ".json")));
    CHECK(merges_of(ours) == merges_of(theirs));
    for (const auto& [token, id] : ours["model"]["vocab"].items()) {
      CAPTURE(token);
      CHECK(theirs["model"]["vocab"].value(token, -1) == id.get<int>());
    }
  }
}

TEST_CASE("training does not depend on threads or on the order of documents") {
  std::vector<std::string> texts = documents();
  lh::BpeTrainOptions options;
  options.vocab_size = 700;
  const std::string one = train(options, texts)->save_json();
  std::reverse(texts.begin(), texts.end());
  options.threads = 4;
  CHECK(train(options, texts)->save_json() == one);
}

TEST_CASE("a trained tokenizer loads from its own file and from its special tokens") {
  lh::BpeTrainOptions options;
  options.vocab_size = 500;
  options.special_tokens = {"<|endoftext|>", "<|pad|>", "<a b>"};
  const auto trained = train(options, documents());
  CHECK(trained->vocab_size() == 500);
  CHECK(trained->end_of_text() == 0);
  CHECK(trained->token_to_id("<a b>") == 2);
  const auto loaded = lh::parse_tokenizer(trained->save_json(), "saved");
  CHECK(loaded->save_json() == trained->save_json());
  CHECK(loaded->digest() == trained->digest());
  const std::string text = documents()[5] + "<|pad|>";
  CHECK(lh::testing::ids_of(*loaded, text) == lh::testing::ids_of(*trained, text));
}

TEST_CASE("text that spells a special token never yields it") {
  lh::BpeTrainOptions options;
  options.vocab_size = 400;
  options.special_tokens = {"<|endoftext|>", "EOS", "END"};
  std::string text;
  for (int i = 0; i < 100; ++i) text += "EOS END ENDS EOS\n";
  const auto tokenizer = train(options, {text});
  for (const lh::TokenId id : lh::testing::ids_of(*tokenizer, "EOS END")) CHECK(id >= 3);
  std::vector<lh::TokenId> ids;
  tokenizer->encode_with_special("EOSEND", ids);
  CHECK(ids == std::vector<lh::TokenId>{1, 2});
}

TEST_CASE("the vocabulary stays small when no pair is frequent") {
  lh::BpeTrainOptions options;
  options.vocab_size = 5000;
  const auto tokenizer = train(options, {"abcdefg"});
  CHECK(tokenizer->vocab_size() == 257);
  CHECK(train(options, {})->vocab_size() == 257);
}

TEST_CASE("training on binary and on one giant word keeps every text intact") {
  lh::Philox random(3);
  std::string binary, word;
  for (int i = 0; i < 20000; ++i) binary.push_back(static_cast<char>(random.below(256)));
  for (int i = 0; i < 300000; ++i) word.push_back("acgt"[random.below(4)]);
  lh::BpeTrainOptions options;
  options.vocab_size = 2000;
  const auto tokenizer = train(options, {binary, word, std::string(100000, '-')});
  CHECK(tokenizer->vocab_size() == 2000);
  for (const std::string& text : {binary, word})
    CHECK(tokenizer->decode(lh::testing::ids_of(*tokenizer, text)) == text);
}

TEST_CASE("wrong training options are refused with a reason") {
  const auto message = [](lh::BpeTrainOptions options) -> std::string {
    try {
      lh::BpeTrainer trainer(options);
    } catch (const lh::ConfigError& error) {
      return error.what();
    }
    return "";
  };
  lh::BpeTrainOptions options;
  options.pattern = "lama3";
  CHECK(message(options).find("did you mean 'llama3'") != std::string::npos);
  options = {};
  options.vocab_size = 256;
  CHECK(message(options).find("at least 257") != std::string::npos);
  options = {};
  options.special_tokens = {"<a>", "<a>"};
  CHECK(message(options).find("twice") != std::string::npos);
}

}  // namespace
