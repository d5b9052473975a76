// Copies between element types and strides.
#pragma once
#include "kernels/xpu/types.h"

namespace lh::kernels {

enum class ElementType : std::uint8_t { kF32, kBF16, kF64, kI32, kI64, kU8 };

/// Dimensions, slowest first; the caller drops those of size 1 and merges neighbours that lie one
/// after the other on both sides. Strides in elements. Source and target do not overlap.
struct CopyParams {
  static constexpr int kMaxRank = 4;
  const void* src = nullptr;
  void* dst = nullptr;
  ElementType from = ElementType::kF32, to = ElementType::kF32;
  int rank = 1;
  std::int64_t size[kMaxRank] = {}, src_stride[kMaxRank] = {}, dst_stride[kMaxRank] = {};
};

/// Conversions round to nearest even from f32 to bf16 and as C++ casts otherwise.
void copy(const CopyParams& p, xpu::Stream stream);

}  // namespace lh::kernels
