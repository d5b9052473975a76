// A short, repeatable run of the fuzz target, so that it keeps working without clang.
#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

#include "base/philox.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

TEST_CASE("a short fuzz run over checkpoint files finds no crash") {
  for (uint64_t seed = 0; seed < 3000; ++seed) {
    lh::Philox random(seed);
    std::vector<uint8_t> input(1 + random.below(300));
    for (uint8_t& byte : input) byte = static_cast<uint8_t>(random.next_u32());
    input[0] = static_cast<uint8_t>(seed % 4);
    CHECK(LLVMFuzzerTestOneInput(input.data(), input.size()) == 0);
  }
}
