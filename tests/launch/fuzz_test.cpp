// A short, repeatable run of the fuzz target over damaged conversations, without clang.
#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/philox.h"
#include "launch/failure.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

using namespace lh;

/// What a node may say in the course of a job, sensible or not.
Message sentence(Philox& random) {
  const auto number = [&](uint64_t below) { return static_cast<int64_t>(random.below(below)); };
  switch (random.below(7)) {
    case 0:
    case 1:
      return Message("hello")
          .with("job", random.below(9) == 0 ? "k" : "j")
          .with("host", fmt::format("h{}", number(4)))
          .with("launcher", fmt::format("l{}", number(4)))
          .with("address", "10.0.0.1")
          .with("pid", number(99))
          .with("workers", 1 + number(3))
          .with("node_rank", number(4) - 1)
          .with("min_nodes", int64_t{1})
          .with("max_nodes", int64_t{2})
          .with("max_restarts", int64_t{1});
    case 2:
      return Message("port").with("generation", number(3)).with("port", int64_t{25000});
    case 3: {
      Failure failure;
      failure.rank = number(4);
      failure.message = std::string(random.below(9) == 0 ? 100000 : 3, '\n');
      Message message("failed");
      put_failure(message, failure);
      return message.with("generation", number(3)).with("age", 0.5);
    }
    case 4:
      return Message("ended")
          .with("generation", number(3))
          .with("ok", number(2))
          .with("saved", number(2))
          .with("other", number(2));
    case 5:
      return Message("leaving").with("reason", std::string(random.below(9) == 0 ? 500000 : 3, 'x'));
    default:
      return Message("beat");
  }
}

TEST_CASE("a short fuzz run over launchers' conversations finds no crash") {
  for (uint64_t seed = 0; seed < 3000; ++seed) {
    Philox random(seed);
    std::vector<uint8_t> input;
    for (int i = 0; i < 20; ++i) {
      std::string bytes = encode(sentence(random));
      if (random.below(12) == 0) bytes[random.below(bytes.size())] ^= 4;
      const auto who = static_cast<uint8_t>(random.below(256));
      for (size_t at = 0; at < bytes.size(); at += 255) {
        const size_t length = std::min<size_t>(255, bytes.size() - at);
        input.push_back(at == 0 ? who : who % 3);  // time passes between messages only
        input.push_back(static_cast<uint8_t>(length));
        input.insert(input.end(), bytes.begin() + at, bytes.begin() + at + length);
      }
    }
    CHECK(LLVMFuzzerTestOneInput(input.data(), input.size()) == 0);
  }
}

}  // namespace
