// Properties that need no reference: round trips, streaming, threads, UTF-8 and the byte tokenizer.
#include "tokenizer/tokenizer.h"

#include <doctest/doctest.h>

#include <thread>

#include "base/error.h"
#include "base/philox.h"
#include "tokenizer/golden_files.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/utf8.h"

namespace {

using lh::testing::golden_tokenizer;
using lh::testing::ids_of;

/// Text that mixes words, spaces, well-formed characters of all lengths and stray bytes.
std::string random_text(lh::Philox& random) {
  static constexpr const char* kBits[] = {"the ", "  ", "\n",   "'s", "12",
                                          "é",    "中", "🙂", "-",  "\r\n"};
  std::string text;
  const uint64_t length = random.below(60);
  for (uint64_t i = 0; i < length; ++i) {
    switch (random.below(4)) {
      case 0:
        text.push_back(static_cast<char>(random.below(256)));
        break;
      case 1: {
        const auto c = static_cast<uint32_t>(random.below(0x110000));
        if (c < 0xD800 || c >= 0xE000) lh::append_utf8(text, c);
        break;
      }
      default:
        text += kBits[random.below(std::size(kBits))];
    }
  }
  return text;
}

TEST_CASE("decoding an encoding gives back arbitrary bytes") {
  lh::Philox random(11);
  for (const char* name : {"gpt2", "llama3", "digits"}) {
    const auto tokenizer = golden_tokenizer(name);
    CAPTURE(name);
    for (int i = 0; i < 3000; ++i) {
      const std::string text = random_text(random);
      CHECK(tokenizer->decode(ids_of(*tokenizer, text)) == text);
    }
    std::string every_byte;
    for (int byte = 255; byte >= 0; --byte) every_byte.push_back(static_cast<char>(byte));
    CHECK(tokenizer->decode(ids_of(*tokenizer, every_byte)) == every_byte);
  }
}

TEST_CASE("a tokenizer with NFC decodes to the normalised text and keeps ill-formed bytes") {
  lh::Philox random(12);
  const auto tokenizer = golden_tokenizer("qwen2");
  for (int i = 0; i < 3000; ++i) {
    const std::string text = random_text(random);
    std::string expected, buffer;
    for (std::string_view rest = text; !rest.empty();) {
      const size_t valid = lh::valid_utf8_prefix(rest);
      expected += lh::normalize_nfc(rest.substr(0, valid), buffer);
      rest.remove_prefix(valid);
      const size_t bad = rest.empty() ? 0 : lh::invalid_utf8_length(rest);
      expected += rest.substr(0, bad);
      rest.remove_prefix(bad);
    }
    CHECK(tokenizer->decode(ids_of(*tokenizer, text)) == expected);
    CHECK(ids_of(*tokenizer, expected) == ids_of(*tokenizer, text));
  }
}

TEST_CASE("a prefix space goes in front of the text and of ill-formed bytes") {
  const auto tokenizer = golden_tokenizer("prefix");
  for (const std::string text : {"word",
                                 "\xff"
                                 "word",
                                 "a\xff b\xfe"})
    CHECK(tokenizer->decode(ids_of(*tokenizer, text)) == " " + text);
  CHECK(tokenizer->decode(ids_of(*tokenizer, " word")) == " word");
}

TEST_CASE("a stream of ids decodes to whole characters and to the same bytes in all") {
  lh::Philox random(13);
  const auto bpe = golden_tokenizer("gpt2");
  const auto bytes = lh::make_byte_tokenizer();
  for (const lh::Tokenizer* tokenizer : {bpe.get(), bytes.get()}) {
    for (int i = 0; i < 500; ++i) {
      const std::string text = random_text(random);
      const bool well_formed = lh::valid_utf8_prefix(text) == text.size();
      lh::StreamDecoder decoder(*tokenizer);
      std::string joined;
      for (const lh::TokenId id : ids_of(*tokenizer, text)) {
        const std::string part = decoder.push(id);
        if (well_formed) CHECK(lh::valid_utf8_prefix(part) == part.size());
        joined += part;
      }
      CHECK(joined + decoder.finish() == text);
    }
  }
  lh::StreamDecoder decoder(*bytes);
  CHECK(decoder.push(0xF0).empty());
  CHECK(decoder.push(0x9F).empty());
  CHECK(decoder.push(0x99).empty());
  CHECK(decoder.push(0x82) == "🙂");
}

TEST_CASE("well-formed UTF-8 is told from ill-formed as the standard says") {
  const auto valid = [](std::string_view text) {
    return lh::valid_utf8_prefix(text) == text.size();
  };
  CHECK(valid("aé中🙂\U0010FFFF"));
  for (const char* bad : {"\x80", "\xC1\x81", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF",
                          "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xC3", "\xE2\x82", "\xFF"}) {
    CAPTURE(bad);
    CHECK(lh::valid_utf8_prefix(bad) == 0);
  }
  CHECK(lh::valid_utf8_prefix("12345678abc\xC3\xA9\xFF") == 13);
  // Maximal subparts (Unicode 16, section 3.9, table 3-8).
  CHECK(lh::invalid_utf8_length("\xF0\x9F\x99 ") == 3);
  CHECK(lh::invalid_utf8_length("\xE2\x82"
                                "A") == 2);
  CHECK(lh::invalid_utf8_length("\xED\xA0\x80") == 1);
  CHECK(lh::invalid_utf8_length("\xC0\xAF") == 1);
  CHECK(lh::incomplete_utf8_suffix("a\xF0\x9F\x99") == 3);
  CHECK(lh::incomplete_utf8_suffix("\xED\xA0") == 0);
  CHECK(lh::incomplete_utf8_suffix("é") == 0);
}

TEST_CASE("half a megabyte of unsorted combining marks normalises at once") {
  // Classes 230 and 220 in turn: exchanging neighbours would take n*n/4 steps.
  std::string text = "e", buffer;
  for (int i = 0; i < 125000; ++i) text += "\u0301\u0323";
  const std::string normal(lh::normalize_nfc(text, buffer));
  // e + dot below composes, then the other dots below, then all acutes.
  CHECK(normal.substr(0, 5) == "\u1EB9\u0323");
  CHECK(normal.size() == text.size());  // 1 + 2 bytes became 3
  CHECK(normal.ends_with("\u0301\u0301"));
  CHECK(lh::normalize_nfc(normal, buffer) == normal);
}

TEST_CASE("threads share one tokenizer") {
  const auto tokenizer = golden_tokenizer("llama3");
  const std::string text = lh::read_file(lh::testing::golden_path("corpus.txt")).substr(0, 20000);
  const std::vector<lh::TokenId> expected = ids_of(*tokenizer, text);
  std::vector<std::vector<lh::TokenId>> found(4);
  std::vector<std::thread> threads;
  for (auto& ids : found)
    threads.emplace_back([&] {
      for (int i = 0; i < 5; ++i) {
        ids.clear();
        tokenizer->encode(text, ids);
      }
    });
  for (std::thread& thread : threads) thread.join();
  for (const auto& ids : found) CHECK(ids == expected);
}

TEST_CASE("encode appends") {
  const auto tokenizer = golden_tokenizer("gpt2");
  std::vector<lh::TokenId> ids = {7};
  tokenizer->encode("a", ids);
  CHECK(ids.size() == 2);
  CHECK(ids[0] == 7);
}

TEST_CASE("the byte tokenizer maps bytes to themselves and saves its own form") {
  const auto tokenizer = lh::make_byte_tokenizer();
  CHECK(tokenizer->vocab_size() == 257);
  CHECK(tokenizer->end_of_text() == 256);
  CHECK(ids_of(*tokenizer, "A\xff") == std::vector<lh::TokenId>{65, 255});
  CHECK(tokenizer->decode(std::vector<lh::TokenId>{72, 105, 256}) == "Hi<|endoftext|>");
  CHECK(ids_of(*tokenizer, "<|endoftext|>").size() == 13);
  std::vector<lh::TokenId> ids;
  tokenizer->encode_with_special("a<|endoftext|><|endoftext|>b", ids);
  CHECK(ids == std::vector<lh::TokenId>{97, 256, 256, 98});
  CHECK_THROWS_AS(tokenizer->decode(std::vector<lh::TokenId>{257}), lh::Error);
  const auto loaded = lh::parse_tokenizer(tokenizer->save_json(), "bytes");
  CHECK(loaded->digest() == tokenizer->digest());
  CHECK(loaded->vocab_size() == 257);
}

TEST_CASE("the integer tokenizer writes numbers and reads them again") {
  const auto tokenizer = lh::make_integer_tokenizer(103);
  CHECK(tokenizer->vocab_size() == 103);
  CHECK(tokenizer->end_of_text() == 102);
  std::vector<lh::TokenId> ids;
  tokenizer->encode("  7 101\n\t0 12", ids);
  CHECK(ids == std::vector<lh::TokenId>{7, 101, 0, 12});
  CHECK(tokenizer->decode(ids) == "7 101 0 12 ");
  ids.push_back(102);
  CHECK(tokenizer->decode(ids) == "7 101 0 12 <|endoftext|> ");
  std::vector<lh::TokenId> again;
  tokenizer->encode_with_special(tokenizer->decode(ids), again);
  CHECK(again == ids);
  // Pieces decoded alone join to the whole.
  lh::StreamDecoder stream(*tokenizer);
  std::string text;
  for (const lh::TokenId id : ids) text += stream.push(id);
  CHECK(text + stream.finish() == tokenizer->decode(ids));
  for (const char* bad : {"102", "-1", "1x", "x", "1,2", "<|endoftext|>", "99999999999999999999"}) {
    CAPTURE(bad);
    CHECK_THROWS_AS(tokenizer->encode(bad, ids), lh::ConfigError);
  }
  CHECK_THROWS_AS(tokenizer->decode(std::vector<lh::TokenId>{103}), lh::Error);
  CHECK_THROWS(lh::make_integer_tokenizer(1));
}

TEST_CASE("the integer tokenizer is saved and loaded") {
  const auto tokenizer = lh::make_integer_tokenizer(103);
  const auto loaded = lh::parse_tokenizer(tokenizer->save_json(), "integers");
  CHECK(loaded->digest() == tokenizer->digest());
  CHECK(loaded->vocab_size() == 103);
  CHECK(lh::make_integer_tokenizer(104)->digest() != tokenizer->digest());
  std::string changed = tokenizer->save_json();
  changed.replace(changed.find("102"), 3, "101");
  CHECK_THROWS_AS(lh::parse_tokenizer(changed, "integers"), lh::IoError);
  CHECK_THROWS_AS(lh::parse_tokenizer(R"({"model": {"type": "Integers", "size": 1}})", "integers"),
                  lh::IoError);
}

TEST_CASE("ids outside the vocabulary do not decode") {
  const auto tokenizer = golden_tokenizer("gpt2");
  CHECK_THROWS_AS(tokenizer->decode(std::vector<lh::TokenId>{1000}), lh::Error);
  CHECK_THROWS_AS(tokenizer->decode(std::vector<lh::TokenId>{-1}), lh::Error);
}

}  // namespace
