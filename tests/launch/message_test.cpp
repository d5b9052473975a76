// The wire format: round trips, any split of the bytes, and bytes that are none of it.
#include <doctest/doctest.h>

#include "base/philox.h"
#include "launch/message.h"
#include "support/folder.h"

namespace {

using namespace lh;
using namespace lh::test;

Message example() {
  Message m("failed");
  m.with("text", "two\nlines \\ and \\n = signs\t\x01\xff").with("number", int64_t{-7});
  return m.with("empty", "").with("age", 0.25);
}

TEST_CASE("messages arrive as sent however the bytes are cut") {
  const std::string bytes = encode(example()) + encode(Message("beat")) + encode(example());
  for (size_t piece = 1; piece <= bytes.size(); ++piece) {
    FrameReader reader;
    std::vector<Message> got;
    for (size_t at = 0; at < bytes.size(); at += piece) {
      reader.feed(std::string_view(bytes).substr(at, piece));
      while (auto message = reader.next()) got.push_back(*message);
    }
    REQUIRE(got.size() == 3);
    CHECK(got[0].kind == "failed");
    CHECK(got[0].fields == example().fields);
    CHECK(got[1].kind == "beat");
    CHECK(got[2].fields == example().fields);
  }
}

TEST_CASE("fields that are missing, no numbers or out of range are refused by name") {
  const Message m = example();
  CHECK(m.number("number") == -7);
  CHECK(m.seconds("age") == 0.25);
  CHECK(error_of<ProtocolError>([&] { m.text("x"); }) == "message 'failed' lacks 'x'");
  CHECK(contains(error_of<ProtocolError>([&] { m.number("text"); }), "is not a number"));
  CHECK(contains(error_of<ProtocolError>([&] { m.number("number", 0, 9); }), "from 0 to 9"));
  CHECK(contains(error_of<ProtocolError>([&] { m.number("empty"); }), "is not a number"));
  CHECK(contains(error_of<ProtocolError>([&] { m.seconds("number"); }), "is not a time"));
  CHECK(!error_of<ProtocolError>([&] { Message("x").with("age", "nan").seconds("age"); }).empty());
}

TEST_CASE("bytes that are no message are an error at the first wrong one") {
  for (const std::string& bytes :
       {std::string("GET / HTTP/1.1"), std::string("L "), std::string("LHL2"),
        std::string("LHL1\xff\xff\xff\xff", 8), std::string("LHL1\0\0\0\0", 8),
        std::string("LHL1\0\0\0\1x", 9), std::string("LHL1\0\0\0\4a\nb\n", 12)}) {
    FrameReader reader;
    reader.feed(bytes);
    CHECK(!error_of<ProtocolError>([&] { reader.next(); }).empty());
  }
}

TEST_CASE("random and damaged bytes give messages or a ProtocolError and nothing else") {
  const std::string good = encode(example()) + encode(Message("beat"));
  for (uint64_t seed = 0; seed < 5000; ++seed) {
    Philox random(seed);
    std::string bytes = good;
    const uint64_t damages = random.below(4);
    for (uint64_t i = 0; i < damages; ++i) {
      const size_t at = random.below(bytes.size());
      if (random.below(2) == 0)
        bytes[at] = static_cast<char>(random.next_u32());
      else
        bytes.erase(at, 1 + random.below(3));
    }
    if (seed % 5 == 0)
      for (char& c : bytes) c = static_cast<char>(random.next_u32());
    if (seed % 7 == 0) bytes = "LHL1" + bytes;
    FrameReader reader;
    try {
      for (const char c : bytes) {
        reader.feed({&c, 1});
        while (const auto message = reader.next()) CHECK(!message->kind.empty());
      }
    } catch (const ProtocolError&) {
      // That is what damage is for.
    }
  }
}

}  // namespace
