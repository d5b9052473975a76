// Reading tokenizer.json: what files say about themselves, and that anything wrong or unsupported
// is an IoError that names the place.
#include <doctest/doctest.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/philox.h"
#include "tokenizer/golden_files.h"

namespace {

using Json = nlohmann::json;

Json valid_document() {
  return Json::parse(lh::read_file(lh::testing::golden_path("gpt2.json")));
}

/// The message of the IoError for the document, "" when it loads.
std::string error_of(const std::string& text) {
  try {
    lh::parse_tokenizer(text, "dir/tokenizer.json");
  } catch (const lh::IoError& error) {
    return error.what();
  }
  return "";
}

std::string error_after(const std::function<void(Json&)>& change) {
  Json document = valid_document();
  change(document);
  return error_of(document.dump());
}

TEST_CASE("begin and end tokens come from the post-processor and the usual names") {
  const auto llama3 = lh::testing::golden_tokenizer("llama3");
  CHECK(llama3->begin_of_text() == 1001);
  CHECK(llama3->end_of_text() == 0);
  CHECK(llama3->token_to_id("<|begin_of_text|>") == 1001);
  const auto gpt2 = lh::testing::golden_tokenizer("gpt2");
  CHECK(!gpt2->begin_of_text());
  CHECK(gpt2->end_of_text() == 0);
  Json document = valid_document();
  document["added_tokens"][0]["content"] = "<|stop|>";
  document["model"]["vocab"].erase("<|endoftext|>");
  CHECK(lh::parse_tokenizer(document.dump(), "one special")->end_of_text() == 0);
  document["added_tokens"] = Json::array();
  CHECK(!lh::parse_tokenizer(document.dump(), "no special")->end_of_text());
}

TEST_CASE("the digest ignores layout and notices content") {
  const Json document = valid_document();
  const auto compact = lh::parse_tokenizer(document.dump(), "a");
  const auto indented = lh::parse_tokenizer(document.dump(4), "b");
  CHECK(compact->digest() == indented->digest());
  Json changed = document;
  std::swap(changed["model"]["merges"][0], changed["model"]["merges"][1]);
  CHECK(lh::parse_tokenizer(changed.dump(), "c")->digest() != compact->digest());
}

TEST_CASE("unsupported files are refused by file and key and with what is supported") {
  const struct {
    std::string expected;
    std::function<void(Json&)> change;
  } kCases[] = {
      {"model.type: model type 'WordPiece' is not supported (supported: BPE)",
       [](Json& d) { d["model"]["type"] = "WordPiece"; }},
      {"model type 'Unigram'", [](Json& d) { d["model"]["type"] = "Unigram"; }},
      {"model.byte_fallback: true", [](Json& d) { d["model"]["byte_fallback"] = true; }},
      {"model.dropout: 0.1", [](Json& d) { d["model"]["dropout"] = 0.1; }},
      {"model.end_of_word_suffix", [](Json& d) { d["model"]["end_of_word_suffix"] = "</w>"; }},
      {"normalizer: normalizer 'Lowercase'",
       [](Json& d) {
         d["normalizer"] = {{"type", "Lowercase"}};
       }},
      {"normalizer.normalizers[1]",
       [](Json& d) {
         d["normalizer"] = {{"type", "Sequence"},
                            {"normalizers", {{{"type", "NFC"}}, {{"type", "Strip"}}}}};
       }},
      {"pre_tokenizer: pre-tokenizer 'Metaspace'",
       [](Json& d) {
         d["pre_tokenizer"] = {{"type", "Metaspace"}};
       }},
      {"pre_tokenizer: expected ByteLevel", [](Json& d) { d["pre_tokenizer"] = nullptr; }},
      {"pre_tokenizer: expected ByteLevel",
       [](Json& d) {
         d["pre_tokenizer"] = {{"type", "Digits"}};
       }},
      {"nothing may follow ByteLevel",
       [](Json& d) {
         d["pre_tokenizer"] = {{"type", "Sequence"},
                               {"pretokenizers", {{{"type", "ByteLevel"}}, {{"type", "Digits"}}}}};
       }},
      {"decoder: decoder 'WordPiece'",
       [](Json& d) {
         d["decoder"] = {{"type", "WordPiece"}};
       }},
      {"post_processor: post-processor 'BertProcessing'",
       [](Json& d) {
         d["post_processor"] = {{"type", "BertProcessing"}};
       }},
      {"added_tokens[0]: single_word", [](Json& d) { d["added_tokens"][0]["single_word"] = true; }},
  };
  for (const auto& [expected, change] : kCases) {
    const std::string message = error_after(change);
    CAPTURE(expected);
    CAPTURE(message);
    CHECK(message.starts_with("dir/tokenizer.json: "));
    CHECK(message.find(expected) != std::string::npos);
  }
}

TEST_CASE("malformed files are refused by file and key") {
  const struct {
    std::string expected;
    std::function<void(Json&)> change;
  } kCases[] = {
      {"no key 'model'", [](Json& d) { d.erase("model"); }},
      {"model: expected an object", [](Json& d) { d["model"] = 3; }},
      {"model.vocab: expected an object", [](Json& d) { d["model"].erase("vocab"); }},
      {"model.vocab: \"a\": expected a token id", [](Json& d) { d["model"]["vocab"]["a"] = "x"; }},
      {"expected a token id", [](Json& d) { d["model"]["vocab"]["a"] = -4; }},
      {"expected a token id", [](Json& d) { d["model"]["vocab"]["a"] = 1.5; }},
      {"expected a token id", [](Json& d) { d["model"]["vocab"]["a"] = 1ull << 40; }},
      {"the largest token id is 2147483647",
       [](Json& d) { d["model"]["vocab"]["a"] = 2147483647; }},
      {"belongs to", [](Json& d) { d["model"]["vocab"]["a"] = 5; }},
      {"token \"<|endoftext|>\" has the ids 0 and 5",
       [](Json& d) { d["added_tokens"][0]["id"] = 5; }},
      {"model.merges[0]: \"zzzz\" is not in model.vocab",
       [](Json& d) { d["model"]["merges"][0] = "a zzzz"; }},
      {"model.merges[2]: \"!~\" is not",
       [](Json& d) {
         d["model"]["merges"][2] = Json::array({"!", "~"});
       }},
      {"model.merges[1]: expected", [](Json& d) { d["model"]["merges"][1] = "a b c"; }},
      {"model.merges[1]: expected", [](Json& d) { d["model"]["merges"][1] = Json::array({"a"}); }},
      {"model.merges[1]: one side", [](Json& d) { d["model"]["merges"][1] = " a"; }},
      {"model.merges: expected a list", [](Json& d) { d["model"]["merges"] = "a b"; }},
      {"added_tokens[0].content: expected a string",
       [](Json& d) { d["added_tokens"][0]["content"] = 1; }},
      {"added_tokens[0]: the content is empty",
       [](Json& d) { d["added_tokens"][0]["content"] = ""; }},
      {"pre_tokenizer.pattern.Regex: PCRE2 rejects the pattern '(a': missing closing",
       [](Json& d) {
         d["pre_tokenizer"] = {
             {"type", "Split"}, {"pattern", {{"Regex", "(a"}}}, {"behavior", "Isolated"}};
       }},
      {"nested set or &&",
       [](Json& d) {
         d["pre_tokenizer"] = {
             {"type", "Split"}, {"pattern", {{"Regex", "[a&&b]"}}}, {"behavior", "Isolated"}};
       }},
  };
  for (const auto& [expected, change] : kCases) {
    const std::string message = error_after(change);
    CAPTURE(expected);
    CAPTURE(message);
    CHECK(message.starts_with("dir/tokenizer.json: "));
    CHECK(message.find(expected) != std::string::npos);
  }
  CHECK(error_of("").find("not valid JSON") != std::string::npos);
  CHECK(error_of("{\"model\": \"\\ud800\"}").find("not valid JSON") != std::string::npos);
  CHECK(error_of(std::string(1 << 20, '[')).find("nested more than") != std::string::npos);
  CHECK_THROWS_AS(lh::load_tokenizer("/nonexistent/tokenizer.json"), lh::IoError);
}

TEST_CASE("hundreds of mutated files load or throw IoError and never crash") {
  // A small valid file, so that a mutation hits its structure and not only its vocabulary.
  Json document = valid_document();
  Json vocab = Json::object();
  for (const auto& [token, id] : document["model"]["vocab"].items())
    if (id.get<int>() < 262) vocab[token] = id;
  document["model"]["vocab"] = vocab;
  document["model"]["merges"].erase(document["model"]["merges"].begin() + 5,
                                    document["model"]["merges"].end());
  const std::string valid = document.dump();
  REQUIRE(error_of(valid).empty());

  lh::Philox random(21);
  static constexpr std::string_view kInserts[] = {
      "null",    "-1",   "1e999",   "99999999999999999999",
      "[",       "]",    "{",       "}",
      "\"",      ",",    "\\u0000", "true",
      "[[[[[[",  "\xff", "\\ud83d", "0.5",
      "\"a\":1,"};
  int loaded = 0;
  for (int i = 0; i < 600; ++i) {
    std::string text = valid;
    const uint64_t changes = 1 + random.below(3);
    for (uint64_t change = 0; change < changes; ++change) {
      const size_t at = random.below(text.size());
      switch (random.below(4)) {
        case 0:
          text.resize(at + 1);
          break;
        case 1:
          text[at] = static_cast<char>(random.below(256));
          break;
        case 2:
          text.erase(at, 1 + random.below(20));
          break;
        default:
          text = text.substr(0, at).append(kInserts[random.below(std::size(kInserts))]) +
                 text.substr(at);
      }
      if (text.empty()) text.push_back(' ');
    }
    try {
      const auto tokenizer = lh::parse_tokenizer(text, "mutated");
      ++loaded;
      const std::vector<lh::TokenId> ids = lh::testing::ids_of(*tokenizer, "Hello 12 \xff é\n");
      tokenizer->decode(ids);
    } catch (const lh::IoError& error) {
      CHECK(std::string_view(error.what()).starts_with("mutated: "));
    }
  }
  CHECK(loaded > 0);
  CHECK(loaded < 600);
}

}  // namespace
