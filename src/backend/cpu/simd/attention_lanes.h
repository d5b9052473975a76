// Register-level pieces of the attention tiles, shared by the f32 and bf16 tables: transposition,
// powers of two, the online softmax and the gradient of the scores. Score tiles are [keys][queries]
// with leading dimension kTile (attention_tiles.h), so all reductions run across registers.
#pragma once

#include "backend/cpu/attention_tiles.h"
#include "backend/cpu/simd/vec.h"

namespace lh::cpu::LH_SIMD_NAMESPACE {
namespace {

// Interleaves the lower or upper halves of two registers.
#define LH_LOW2 0, 2
#define LH_HIGH2 1, 3
#define LH_LOW4 0, 4, 1, 5
#define LH_HIGH4 2, 6, 3, 7
#define LH_LOW8 0, 8, 1, 9, 2, 10, 3, 11
#define LH_HIGH8 4, 12, 5, 13, 6, 14, 7, 15
#define LH_LOW16 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define LH_HIGH16 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31

inline VecF interleave_low(VecF a, VecF b) {
#if defined(__AVX512F__)
  return __builtin_shufflevector(a, b, LH_LOW16);
#elif defined(__AVX2__)
  return __builtin_shufflevector(a, b, LH_LOW8);
#else
  return __builtin_shufflevector(a, b, LH_LOW4);
#endif
}
inline VecF interleave_high(VecF a, VecF b) {
#if defined(__AVX512F__)
  return __builtin_shufflevector(a, b, LH_HIGH16);
#elif defined(__AVX2__)
  return __builtin_shufflevector(a, b, LH_HIGH8);
#else
  return __builtin_shufflevector(a, b, LH_HIGH4);
#endif
}
inline VecD interleave_low(VecD a, VecD b) {
#if defined(__AVX512F__)
  return __builtin_shufflevector(a, b, LH_LOW8);
#elif defined(__AVX2__)
  return __builtin_shufflevector(a, b, LH_LOW4);
#else
  return __builtin_shufflevector(a, b, LH_LOW2);
#endif
}
inline VecD interleave_high(VecD a, VecD b) {
#if defined(__AVX512F__)
  return __builtin_shufflevector(a, b, LH_HIGH8);
#elif defined(__AVX2__)
  return __builtin_shufflevector(a, b, LH_HIGH4);
#else
  return __builtin_shufflevector(a, b, LH_HIGH2);
#endif
}

/// Transposes a square of registers. Each round interleaves rows i and i + kLanes / 2, which
/// rotates the bits of every element's (row, column) address by one.
template <typename V>
inline __attribute__((always_inline)) void transpose(V (&rows)[sizeof(V) / sizeof(V{}[0])]) {
  constexpr int kLanes = sizeof(V) / sizeof(V{}[0]);
#pragma GCC unroll 4
  for (int round = 1; round < kLanes; round *= 2) {
    V next[kLanes];
#pragma GCC unroll 8
    for (int i = 0; i < kLanes / 2; ++i) {
      next[2 * i] = interleave_low(rows[i], rows[i + kLanes / 2]);
      next[2 * i + 1] = interleave_high(rows[i], rows[i + kLanes / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) rows[i] = next[i];
  }
}

/// dst[c][r] = src[r][c] for rows x cols elements of T; rows and columns up to the next multiple of
/// the lanes are written, from zeros. dst has room for that.
template <typename T, typename Real>
inline void transpose_tile(const T* src, int64_t stride, int rows, int cols, Real* dst,
                           int64_t ld) {
  using V = vec_t<Real>;
  constexpr int kLanes = Compute<Real>::kLanes;
  for (int r = 0; r < rows; r += kLanes) {
    for_lanes<Real>(cols, [&](int64_t c, auto tail) {
      V square[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i)
        square[i] = r + i < rows ? load(src + (r + i) * stride + c, tail) : V{};
      transpose(square);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) store(dst + (c + i) * ld + r, square[i], Full{});
    });
  }
}

/// The larger of each pair of lanes; `b` where either is NaN.
inline VecF larger(VecF a, VecF b) {
#if defined(__AVX512F__)
  return _mm512_max_ps(a, b);
#elif defined(__AVX2__)
  return _mm256_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}
inline VecD larger(VecD a, VecD b) {
  return a > b ? a : b;
}

/// 2^x, relative error below 2e-7; exactly 1 at 0, exactly 0 below -126 (and at -inf); x <= 127.
/// NaN stays NaN.
inline VecF power_of_two(VecF x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const VecF bounded = larger(splat<VecF>(-127.0f), x);
  const VecF shifted = bounded + kRound;
  const VecF f = bounded - (shifted - kRound);
  VecF p = splat<VecF>(1.3264727e-3f);  // minimax of relative error 9e-8 on [-0.5, 0.5]
  p = p * f + 9.6715129e-3f;
  p = p * f + 5.5507337e-2f;
  p = p * f + 2.4022242e-1f;
  p = p * f + 6.9314698e-1f;
  p = p * f + 1.0f;
  const VecF result = bits_as<VecF>(bits_as<VecI>(p) + (bits_as<VecI>(shifted) << 23));
#if defined(__AVX512F__)
  return bits_as<VecF>(
      _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, _mm512_set1_ps(-126.0f), _CMP_NLT_UQ), result));
#else
  return x < -126.0f ? VecF{} : result;
#endif
}
inline VecD power_of_two(VecD x) {
  for (int i = 0; i < Compute<double>::kLanes; ++i) x[i] = __builtin_exp2(x[i]);
  return x;
}

template <int kNumber>
struct Registers {
  static constexpr int kCount = kNumber;
};

/// Calls body(c, Registers) for blocks of as many registers over n columns, n a multiple of the
/// lanes.
template <typename Real, typename F>
inline __attribute__((always_inline)) void for_columns(int n, F&& body) {
  constexpr int kLanes = Compute<Real>::kLanes;
  int c = 0;
  for (; c + 4 * kLanes <= n; c += 4 * kLanes) body(c, Registers<4>{});
  for (; c < n; c += kLanes) body(c, Registers<1>{});
}

/// TileOps::softmax; put(r, c, p0, p1) stores the weights of rows r and r + 1 (p1 is 0 past the
/// last row) at columns from c.
template <typename Real, typename Put>
inline bool softmax_columns(const Real* scores, int rows, int n, Real scale, Real* top, Real* total,
                            Real* shrink, Put&& put) {
  using V = vec_t<Real>;
  constexpr int kLanes = Compute<Real>::kLanes;
  constexpr Real kLowest = -__builtin_huge_val();
  bool moved = false;
  for_columns<Real>(n, [&](int c0, auto block) {
    constexpr int kCount = decltype(block)::kCount;
    V most[kCount], sum[kCount], reference[kCount];
    for (int j = 0; j < kCount; ++j) most[j] = splat<V>(kLowest);
    for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
      for (int j = 0; j < kCount; ++j) {
        most[j] = larger(load(scores + r * kTile + c0 + j * kLanes, Full{}), most[j]);
      }
    }
    for (int j = 0; j < kCount; ++j) {
      const int c = c0 + j * kLanes;
      const V old = load(top + c, Full{}), now = most[j] * scale;
      const auto lags = now > old + Real(kSoftmaxSlack);
      const V next = lags ? now : old;
      // Where nothing is visible yet the reference is -inf: measure from 0 instead.
      reference[j] = next == kLowest ? V{} : next;
      V factor = splat<V>(Real(1));
      for (int i = 0; i < kLanes; ++i) moved |= lags[i] != 0;
      factor = lags ? power_of_two(old - reference[j]) : factor;
      store(top + c, next, Full{});
      store(shrink + c, factor, Full{});
      sum[j] = load(total + c, Full{}) * factor;
    }
    for (int r = 0; r < rows; r += 2) {
      const bool pair = r + 1 < rows;
#pragma GCC unroll 4
      for (int j = 0; j < kCount; ++j) {
        const int c = c0 + j * kLanes;
        const Real* s = scores + r * kTile + c;
        const V p0 = power_of_two(load(s, Full{}) * scale - reference[j]);
        const V p1 = pair ? power_of_two(load(s + kTile, Full{}) * scale - reference[j]) : V{};
        sum[j] += p0 + p1;
        put(r, c, p0, p1);
      }
    }
    for (int j = 0; j < kCount; ++j) store(total + c0 + j * kLanes, sum[j], Full{});
  });
  return moved;
}

/// TileOps::score_gradient; put(r, c, p0, p1, ds0, ds1) as above.
template <typename Real, typename Put>
inline void score_gradient_columns(const Real* scores, const Real* dp, int rows, int n, Real scale,
                                   const Real* lse2, const Real* delta, Put&& put) {
  using V = vec_t<Real>;
  constexpr int kLanes = Compute<Real>::kLanes;
  for_columns<Real>(n, [&](int c0, auto block) {
    constexpr int kCount = decltype(block)::kCount;
    V reference[kCount], mean[kCount];
    for (int j = 0; j < kCount; ++j) {
      reference[j] = load(lse2 + c0 + j * kLanes, Full{});
      mean[j] = load(delta + c0 + j * kLanes, Full{});
    }
    for (int r = 0; r < rows; r += 2) {
      const bool pair = r + 1 < rows;
#pragma GCC unroll 4
      for (int j = 0; j < kCount; ++j) {
        const int c = c0 + j * kLanes;
        const Real *s = scores + r * kTile + c, *g = dp + r * kTile + c;
        const V p0 = power_of_two(load(s, Full{}) * scale - reference[j]);
        const V ds0 = p0 * (load(g, Full{}) - mean[j]);
        V p1{}, ds1{};
        if (pair) {
          p1 = power_of_two(load(s + kTile, Full{}) * scale - reference[j]);
          ds1 = p1 * (load(g + kTile, Full{}) - mean[j]);
        }
        put(r, c, p0, p1, ds0, ds1);
      }
    }
  });
}

// The entries of TileOps that no table needs to specialise.

template <typename Real>
void mask(Real* scores, int rows, int n, const int* begin, const int* end) {
  constexpr Real kLowest = -__builtin_huge_val();
  for (int r = 0; r < rows; ++r) {
    Real* row = scores + r * kTile;
    for (int c = 0; c < begin[r]; ++c) row[c] = kLowest;
    for (int c = end[r]; c < n; ++c) row[c] = kLowest;
  }
}

template <typename Real>
void add_bias(Real* scores, int rows, int n, const Real* bias, const int* first) {
  constexpr int kLanes = Compute<Real>::kLanes;
  for (int r = 0; r < rows; ++r) {
    if (bias[r] == 0) continue;
    Real* row = scores + r * kTile;
    int c = first[r];
    for (; c < n && c % kLanes != 0; ++c) row[c] += bias[r];
    for (; c < n; c += kLanes) store(row + c, load(row + c, Full{}) + bias[r], Full{});
  }
}

template <typename Real>
void add_row_sums(const Real* x, int rows, int n, const int* first, double* sums) {
  using V = vec_t<Real>;
  constexpr int kLanes = Compute<Real>::kLanes;
  for (int r = 0; r < rows; ++r) {
    const Real* row = x + r * kTile;
    int c = first[r];
    Real ragged = 0;
    V sum{};
    for (; c < n && c % kLanes != 0; ++c) ragged += row[c];
    for (; c < n; c += kLanes) sum += load(row + c, Full{});
    sums[r] += static_cast<double>(ragged + sum_lanes(sum));
  }
}

template <typename Real>
void scale_columns(Real* c, int d, int n, const Real* factor) {
  for (int i = 0; i < d; ++i)
    for_lanes<Real>(n, [&](int64_t j, auto tail) {
      Real* at = c + i * kTile + j;
      store(at, load(at, tail) * load(factor + j, tail), tail);
    });
}

template <typename T>
void store_columns(const scalar_t<T>* c, int rows, int cols, const scalar_t<T>* factor, void* dst,
                   int64_t stride) {
  using Real = scalar_t<T>;
  constexpr int kLanes = Compute<Real>::kLanes;
  T* out = static_cast<T*>(dst);
  for (int r = 0; r < rows; r += kLanes) {
    for_lanes<Real>(cols, [&](int64_t i0, auto tail) {
      vec_t<Real> square[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) square[i] = load(c + (i0 + i) * kTile + r, Full{});
      transpose(square);
      for (int i = 0; i < kLanes && r + i < rows; ++i)
        store(out + (r + i) * stride + i0, square[i] * factor[r + i], tail);
    });
  }
}

template <typename T>
void store_rows(const scalar_t<T>* c, int ldc, int rows, int cols, scalar_t<T> factor, void* dst,
                int64_t stride) {
  T* out = static_cast<T*>(dst);
  for (int r = 0; r < rows; ++r)
    for_lanes<T>(cols, [&](int64_t i, auto tail) {
      store(out + r * stride + i, load(c + r * ldc + i, tail) * factor, tail);
    });
}

template <typename T>
void row_dots(const void* a, int64_t stride_a, const void* b, int64_t stride_b, int rows, int cols,
              scalar_t<T>* result) {
  for (int r = 0; r < rows; ++r) {
    vec_t<T> sum{};
    const T *x = static_cast<const T*>(a) + r * stride_a,
            *y = static_cast<const T*>(b) + r * stride_b;
    for_lanes<T>(cols, [&](int64_t i, auto tail) { sum += load(x + i, tail) * load(y + i, tail); });
    result[r] = sum_lanes(sum);
  }
}

inline void no_setup() {}

}  // namespace
}  // namespace lh::cpu::LH_SIMD_NAMESPACE
