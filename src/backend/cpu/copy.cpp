// Copies between any dtypes and strides: dimensions are merged where both sides allow, then rows
// are converted whole, and true transposes go through square tiles so that both sides are read and
// written in cache lines.
#include <algorithm>
#include <cstring>
#include <vector>

#include "backend/operands.h"
#include "backend/cpu/parallel.h"
#include "backend/cpu/simd/elementwise.h"
#include "backend/elementwise.h"

namespace lh::cpu {
namespace {

using Dim = CopyDim;

template <typename To, typename From>
inline To convert_value(From value) {
  if constexpr (std::is_same_v<To, bf16>) return bf16(static_cast<float>(value));
  else if constexpr (std::is_same_v<From, bf16>) return static_cast<To>(static_cast<float>(value));
  else return static_cast<To>(value);
}

template <typename From, typename To>
void convert_row(const From* src, To* dst, int64_t n) {
  if constexpr (std::is_same_v<From, To>) {
    std::memcpy(dst, src, static_cast<size_t>(n) * sizeof(From));
  } else if constexpr (std::is_same_v<From, float> && std::is_same_v<To, bf16>) {
    LH_SIMD_CALL(convert(src, reinterpret_cast<uint16_t*>(dst), n));
  } else if constexpr (std::is_same_v<From, bf16> && std::is_same_v<To, float>) {
    LH_SIMD_CALL(convert(reinterpret_cast<const uint16_t*>(src), dst, n));
  } else {
    for (int64_t i = 0; i < n; ++i) dst[i] = convert_value<To>(src[i]);
  }
}

/// Offsets of the position `flat` (row-major) in dims[0 .. count).
std::pair<int64_t, int64_t> offsets_at(const std::vector<Dim>& dims, size_t count, int64_t flat) {
  int64_t src = 0, dst = 0;
  for (size_t i = count; i-- > 0;) {
    src += flat % dims[i].size * dims[i].src;
    dst += flat % dims[i].size * dims[i].dst;
    flat /= dims[i].size;
  }
  return {src, dst};
}

template <typename From, typename To>
void copy_rows(const From* src, To* dst, const std::vector<Dim>& dims) {
  const Dim row = dims.back();
  const size_t outer = dims.size() - 1;
  int64_t rows = 1;
  for (size_t i = 0; i < outer; ++i) rows *= dims[i].size;
  if (rows == 1) {
    for_each_block(row.size, kFlatBlock, [&](int64_t, int64_t begin, int64_t end) {
      convert_row(src + begin, dst + begin, end - begin);
    });
    return;
  }
  for_each_block(rows, rows_per_task(row.size), [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto [from, to] = offsets_at(dims, outer, i);
      convert_row(src + from, dst + to, row.size);
    }
  });
}

/// No dimension is contiguous on both sides: tiles over the last two of `dims`.
template <typename From, typename To>
void copy_tiles(const From* src, To* dst, std::vector<Dim> dims) {
  constexpr int64_t kTile = 32;
  // The fastest dimension of src becomes the last but one, the fastest of dst the last.
  const auto by_dst = [](const Dim& a, const Dim& b) { return a.dst > b.dst; };
  std::sort(dims.begin(), dims.end(), by_dst);
  const auto by_src = [](const Dim& a, const Dim& b) { return a.src > b.src; };
  if (dims.size() == 1) dims.insert(dims.begin(), Dim{1, 0, 0});
  std::sort(dims.begin(), dims.end() - 1, by_src);
  const Dim y = dims[dims.size() - 2], x = dims.back();
  const size_t outer = dims.size() - 2;
  int64_t planes = 1;
  for (size_t i = 0; i < outer; ++i) planes *= dims[i].size;
  const int64_t tiles_y = ceil_div(y.size, kTile), tiles_x = ceil_div(x.size, kTile);
  for_each_block(planes * tiles_y * tiles_x, 8, [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile) {
      const auto [from, to] = offsets_at(dims, outer, tile / (tiles_y * tiles_x));
      const int64_t y0 = tile / tiles_x % tiles_y * kTile, x0 = tile % tiles_x * kTile;
      const int64_t y1 = std::min(y.size, y0 + kTile), x1 = std::min(x.size, x0 + kTile);
      for (int64_t i = y0; i < y1; ++i)
        for (int64_t j = x0; j < x1; ++j)
          dst[to + i * y.dst + j * x.dst] =
              convert_value<To>(src[from + i * y.src + j * x.src]);
    }
  });
}

template <typename F>
void with_type(DType dtype, F&& function) {
  switch (dtype) {
    case DType::kF32: return function.template operator()<float>();
    case DType::kBF16: return function.template operator()<bf16>();
    case DType::kF64: return function.template operator()<double>();
    case DType::kI32: return function.template operator()<int32_t>();
    case DType::kI64: return function.template operator()<int64_t>();
    case DType::kU8: return function.template operator()<uint8_t>();
  }
}

}  // namespace

void copy(const Tensor& src, Tensor& dst) {
  check_shape(dst, src.shape(), "copy", "dst");
  if (src.numel() == 0) return;
  const std::vector<Dim> dims = merged_copy_dims(src, dst);
  const bool rows = dims.back().src == 1 && dims.back().dst == 1;
  with_type(src.dtype(), [&]<typename From>() {
    with_type(dst.dtype(), [&]<typename To>() {
      if (rows) copy_rows(src.data<From>(), dst.data<To>(), dims);
      else copy_tiles(src.data<From>(), dst.data<To>(), dims);
    });
  });
}

}  // namespace lh::cpu
