// A short, repeatable run of the fuzz target over mutated shipped recipes.
#include <doctest/doctest.h>

#include <cstdint>

#include "base/file.h"
#include "base/philox.h"
#include "config_support.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

using namespace lh;

const char* const kWords[] = {
    "null",   "true", "[",   "]",   "{",   "}",   ": ",   "- ",   "\n",
    "  ",     "*a",   "&a ", "1e9", "-1",  "nan", "'",    "\"",   "#",
    "from: ", "!!x",  "|\n", ">\n", "---", "...", "\xff", "\xe2", "9223372036854775808"};

/// One to four small changes.
std::string mutate(std::string text, Philox& random) {
  for (uint64_t n = 0; n <= random.below(4); ++n) {
    const size_t at = random.below(static_cast<uint32_t>(text.size()) + 1);
    const size_t length = std::min<size_t>(text.size() - at, random.below(12));
    switch (random.below(5)) {
      case 0:
        text.erase(at, length);
        break;
      case 1:
        text.insert(at, kWords[random.below(std::size(kWords))]);
        break;
      case 2:
        text.insert(at, text.substr(random.below(static_cast<uint32_t>(text.size()) + 1), length));
        break;
      case 3:
        text.replace(at, length, kWords[random.below(std::size(kWords))]);
        break;
      default:
        if (at < text.size()) text[at] = static_cast<char>(random.next_u32());
    }
  }
  return text;
}

TEST_CASE("thousands of mutated recipes are read or refused with a place") {
  uint64_t seed = 0;
  for (const auto& path : test::shipped_recipes()) {
    const std::string text = read_file(path);
    for (int i = 0; i < 1500; ++i) {
      Philox random(++seed);
      const std::string mutant = mutate(text, random);
      CHECK(LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(mutant.data()),
                                   mutant.size()) == 0);
    }
  }
}

}  // namespace
