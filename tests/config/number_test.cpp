#include "config/number.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "base/philox.h"

namespace {

using namespace lh;

std::string integer_error(const std::string& text) {
  int64_t value = 0;
  std::string why;
  return parse_integer(text, value, why) ? "" : why;
}
std::string real_error(const std::string& text) {
  double value = 0;
  std::string why;
  return parse_real(text, value, why) ? "" : why;
}

TEST_CASE("integers are read exactly or refused with a reason") {
  const auto value = [](const std::string& text) {
    int64_t result = 0;
    std::string why;
    REQUIRE_MESSAGE(parse_integer(text, result, why), why);
    return result;
  };
  CHECK(value("0") == 0);
  CHECK(value("-3") == -3);
  CHECK(value("1e6") == 1'000'000);
  CHECK(value("2.5e3") == 2500);
  CHECK(value("9223372036854775807") == std::numeric_limits<int64_t>::max());
  CHECK(value("-9223372036854775808") == std::numeric_limits<int64_t>::min());
  CHECK(value("9007199254740993") == 9007199254740993);  // not a double
  for (const char* bad : {"", " ", "x", "1.5", "1e-1", "2.55e1", "0x10", "1_000", "1,000", "1k",
                          "--1", "1e99", "9223372036854775808", "inf", "nan", "1 2", "1e", "."})
    CHECK_MESSAGE(integer_error(bad) != "", bad);
}

TEST_CASE("numbers are finite and within range") {
  for (const char* good : {"1", "-1.5", "1e-3", "3.0E-4", ".5", "1e308", "5e-324", "0.1"})
    CHECK_MESSAGE(real_error(good) == "", good);
  for (const char* bad : {"", "nan", ".nan", "inf", "-.inf", "1e999", "0x1p3", "1_0", "fast",
                          "1.2.3", "1e", "--1", "1 "})
    CHECK_MESSAGE(real_error(bad) != "", bad);
}

TEST_CASE("every double survives being written and read") {
  Philox random(1);
  for (int i = 0; i < 20'000; ++i) {
    const uint64_t bits = (uint64_t{random.next_u32()} << 32) | random.next_u32();
    double value;
    std::memcpy(&value, &bits, sizeof value);
    if (!std::isfinite(value)) continue;
    double back = 0;
    std::string why;
    REQUIRE(parse_real(format_real(value), back, why));
    CHECK(back == value);
  }
}

}  // namespace
