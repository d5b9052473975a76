// Element types and bfloat16.
#pragma once

#include <bit>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include "base/error.h"

namespace lh {

enum class DType : uint8_t { kF32, kBF16, kF64, kI32, kI64, kU8 };

/// bfloat16 storage: the upper half of an IEEE float. Arithmetic is done in float.
struct bf16 {
  uint16_t bits = 0;

  bf16() = default;
  /// Rounds to nearest, ties to even; NaN stays NaN.
  explicit bf16(float value) {
    const uint32_t u = std::bit_cast<uint32_t>(value);
    bits = (u & 0x7fffffffu) > 0x7f800000u
               ? static_cast<uint16_t>(u >> 16 | 0x40u)
               : static_cast<uint16_t>((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
  }
  operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
};

size_t dtype_size(DType dtype);
const char* dtype_name(DType dtype);
inline bool is_floating(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF64;
}

template <typename T>
constexpr DType dtype_of() {
  if constexpr (std::is_same_v<T, float>) return DType::kF32;
  else if constexpr (std::is_same_v<T, bf16>) return DType::kBF16;
  else if constexpr (std::is_same_v<T, double>) return DType::kF64;
  else if constexpr (std::is_same_v<T, int32_t>) return DType::kI32;
  else if constexpr (std::is_same_v<T, int64_t>) return DType::kI64;
  else {
    static_assert(std::is_same_v<T, uint8_t>, "no DType for this C++ type");
    return DType::kU8;
  }
}

/// The type sums of T are kept in: double for double, float otherwise.
template <typename T>
using accumulate_t = std::conditional_t<std::is_same_v<T, double>, double, float>;

/// Calls function.template operator()<T>() with the C++ type of a floating dtype:
///   dispatch_float(x.dtype(), "rms_norm", [&]<typename T>() { ... });
template <typename F>
decltype(auto) dispatch_float(DType dtype, std::string_view op, F&& function) {
  switch (dtype) {
    case DType::kF32: return function.template operator()<float>();
    case DType::kBF16: return function.template operator()<bf16>();
    case DType::kF64: return function.template operator()<double>();
    default: fail<ShapeError>("[{}] expected f32, bf16 or f64, got {}", op, dtype_name(dtype));
  }
}

}  // namespace lh
