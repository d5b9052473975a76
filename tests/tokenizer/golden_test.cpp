// Encodings equal those of the HF tokenizers library, for files that it wrote.
#include <doctest/doctest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "tokenizer/golden_files.h"
#include "tokenizer/utf8.h"

namespace {

using Json = nlohmann::json;
using lh::testing::golden_tokenizer;
using lh::testing::golden_tokenizers;
using lh::testing::ids_digest;
using lh::testing::ids_of;

const Json& golden() {
  static const Json kGolden =
      Json::parse(lh::read_file(lh::testing::golden_path("encodings.json")));
  return kGolden;
}

std::string unhex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2)
    bytes.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return bytes;
}

TEST_CASE("texts of every kind encode as in the reference library") {
  for (const std::string& name : golden_tokenizers()) {
    const auto tokenizer = golden_tokenizer(name);
    const Json& expected = golden()["tokenizers"][name]["ids"];
    REQUIRE(golden()["texts"].size() == expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      const auto text = golden()["texts"][i].get<std::string>();
      CAPTURE(name);
      CAPTURE(text);
      CHECK(ids_of(*tokenizer, text) == expected[i].get<std::vector<lh::TokenId>>());
    }
  }
}

TEST_CASE("samples of every Unicode block encode as in the reference library") {
  for (const std::string& name : golden_tokenizers()) {
    const auto tokenizer = golden_tokenizer(name);
    for (const auto& [block, digest] : golden()["tokenizers"][name]["blocks"].items()) {
      CAPTURE(name);
      CAPTURE(block);
      const auto text = golden()["block_texts"][block].get<std::string>();
      CHECK(ids_digest(ids_of(*tokenizer, text)) == digest.get<std::string>());
    }
  }
}

TEST_CASE("every code point in context encodes as in the reference library") {
  for (const std::string& name : golden_tokenizers()) {
    const auto tokenizer = golden_tokenizer(name);
    const Json& expected = golden()["tokenizers"][name]["code_points"];
    for (size_t chunk = 0; chunk < expected.size(); ++chunk) {
      std::string text;
      for (uint32_t c = static_cast<uint32_t>(chunk) * 4096; c < (chunk + 1) * 4096; ++c) {
        if (c >= 0xD800 && c < 0xE000) continue;
        std::string one;
        lh::append_utf8(one, c);
        text += "b" + one + "7" + one + one + " " + one + "\n\u0345" + one + "\u0334";
      }
      CAPTURE(name);
      CAPTURE(chunk);
      CHECK(ids_digest(ids_of(*tokenizer, text)) == expected[chunk].get<std::string>());
    }
  }
}

TEST_CASE("a megabyte of one character encodes as in the reference library") {
  for (const std::string& name : golden_tokenizers()) {
    const auto tokenizer = golden_tokenizer(name);
    for (const auto& [key, digest] : golden()["tokenizers"][name]["long"].items()) {
      const Json& recipe = golden()["long_texts"][key];
      std::string text;
      for (int i = 0; i < recipe[1].get<int>(); ++i) text += recipe[0].get<std::string>();
      CAPTURE(name);
      CAPTURE(key);
      CHECK(ids_digest(ids_of(*tokenizer, text)) == digest.get<std::string>());
    }
  }
}

TEST_CASE("text around ill-formed bytes encodes as in the reference library") {
  for (const std::string& name : golden_tokenizers()) {
    const Json& tokenizer_golden = golden()["tokenizers"][name];
    if (!tokenizer_golden.contains("broken")) continue;
    const auto tokenizer = golden_tokenizer(name);
    for (const Json& item : tokenizer_golden["broken"]) {
      const std::string data = unhex(item["hex"]);
      CAPTURE(name);
      CAPTURE(item["hex"].get<std::string>());
      const std::vector<lh::TokenId> ids = ids_of(*tokenizer, data);
      CHECK(tokenizer->decode(ids) == data);
      // Pieces without a replaced byte have the library's ids; the others their own bytes.
      size_t at = 0;
      for (const Json& piece : item["pieces"]) {
        if (piece.contains("ids")) {
          for (const Json& id : piece["ids"]) {
            REQUIRE(at < ids.size());
            CHECK(ids[at++] == id.get<lh::TokenId>());
          }
        } else {
          const std::string bytes = unhex(piece["bytes"]);
          std::string decoded;
          while (decoded.size() < bytes.size() && at < ids.size())
            decoded += tokenizer->decode(std::span(&ids[at++], 1));
          CHECK(decoded == bytes);
        }
      }
      CHECK(at == ids.size());
    }
  }
}

TEST_CASE("special tokens in text become their ids only when asked for") {
  for (const std::string& name : golden_tokenizers()) {
    const auto tokenizer = golden_tokenizer(name);
    const Json& expected = golden()["tokenizers"][name]["special_ids"];
    for (size_t i = 0; i < expected.size(); ++i) {
      const auto text = golden()["special_texts"][i].get<std::string>();
      CAPTURE(name);
      CAPTURE(text);
      std::vector<lh::TokenId> ids;
      tokenizer->encode_with_special(text, ids);
      CHECK(ids == expected[i].get<std::vector<lh::TokenId>>());
    }
    const std::vector<lh::TokenId> plain = ids_of(*tokenizer, "a<|endoftext|>b");
    CHECK(std::find(plain.begin(), plain.end(), *tokenizer->token_to_id("<|endoftext|>")) ==
          plain.end());
  }
}

TEST_CASE("a whole corpus encodes as in the reference library and decodes to itself") {
  const std::string corpus = lh::read_file(lh::testing::golden_path("corpus.txt"));
  for (const std::string& name : golden_tokenizers()) {
    const auto tokenizer = golden_tokenizer(name);
    const std::vector<lh::TokenId> ids = ids_of(*tokenizer, corpus);
    CAPTURE(name);
    CHECK(ids_digest(ids) == golden()["tokenizers"][name]["corpus"].get<std::string>());
    if (name != "qwen2" && name != "prefix") CHECK(tokenizer->decode(ids) == corpus);
  }
}

}  // namespace
