// Elements as the simd kernels see them.
#pragma once

#include <type_traits>

#include "tensor/tensor.h"

namespace lh::cpu {

/// Pointer for simd kernels, which see a bfloat16 as its 16 bits.
template <typename T>
auto* lanes(const Tensor& t) {
  if constexpr (std::is_same_v<T, bf16>) {
    return reinterpret_cast<uint16_t*>(t.data<bf16>());
  } else {
    return t.data<T>();
  }
}

}  // namespace lh::cpu
