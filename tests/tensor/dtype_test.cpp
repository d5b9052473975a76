#include "tensor/dtype.h"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "backend/elementwise.h"
#include "base/philox.h"
#include "tensor/tensor.h"

namespace {

using namespace lh;

/// The nearest bfloat16 by search: its neighbours are exact floats, ties go to the even one.
uint16_t nearest_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto low = static_cast<uint16_t>(bits >> 16);
  if ((bits & 0xffff) == 0) return low;
  const auto widen = [](uint32_t half) {
    return static_cast<double>(std::bit_cast<float>(half << 16));
  };
  const double below = widen(low);
  // Beyond the largest finite value the next one up would be 2^128.
  const double above = (low & 0x7fff) == 0x7f7f ? std::copysign(0x1p128, value) : widen(low + 1u);
  const double down = std::abs(value - below), up = std::abs(above - value);
  if (down != up) return down < up ? low : static_cast<uint16_t>(low + 1);
  return (low & 1) == 0 ? low : static_cast<uint16_t>(low + 1);
}

uint16_t bits_of(bf16 value) {
  return std::bit_cast<uint16_t>(value);
}

TEST_CASE("floats become the nearest bfloat16 with ties to even one by one and in kernels") {
  std::vector<float> values = {0.0f,
                               -0.0f,
                               1.0f,
                               0x1p-149f,
                               0x1p-133f,
                               3.3895314e38f,
                               std::numeric_limits<float>::max(),
                               -std::numeric_limits<float>::max(),
                               std::numeric_limits<float>::infinity(),
                               -std::numeric_limits<float>::infinity()};
  Philox random(1);
  for (int i = 0; i < 50'000; ++i) {
    uint32_t bits = random.next_u32();
    if (i % 4 == 0) bits = (bits & 0xffff0000u) | 0x8000u;  // ties
    const float value = std::bit_cast<float>(bits);
    if (!std::isnan(value)) values.push_back(value);
  }
  const auto count = static_cast<int64_t>(values.size());
  Tensor narrow = Tensor::empty({count}, DType::kBF16);
  cpu::copy(Tensor::from(values, {count}), narrow);
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t want = nearest_bf16(values[i]);
    CHECK(bits_of(bf16(values[i])) == want);
    CHECK(bits_of(narrow.data<bf16>()[i]) == want);
  }
}

TEST_CASE("NaN stays NaN in bfloat16 whatever its payload") {
  for (const uint32_t bits : {0x7f800001u, 0x7fc00000u, 0xff80ffffu, 0x7fffffffu}) {
    const float value = std::bit_cast<float>(bits);
    CHECK(std::isnan(static_cast<float>(bf16(value))));
    Tensor narrow = Tensor::empty({17}, DType::kBF16);
    cpu::copy(Tensor::from(std::vector<float>(17, value), {17}), narrow);
    for (int i = 0; i < 17; ++i) CHECK(std::isnan(static_cast<float>(narrow.data<bf16>()[i])));
  }
}

TEST_CASE("every bfloat16 is a float and comes back") {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const auto value = std::bit_cast<bf16>(static_cast<uint16_t>(bits));
    const auto wide = static_cast<float>(value);
    if (std::isnan(wide)) continue;
    CHECK(std::bit_cast<uint32_t>(wide) == bits << 16);
    CHECK(bits_of(bf16(wide)) == bits);
  }
}

}  // namespace
