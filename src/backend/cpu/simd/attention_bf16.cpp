// Layouts, the same for both tables:
//   left operand   a[m][k], bf16 rows;
//   right operand  b[k / 2][n], each element the bf16 pair of contraction indices 2i and 2i + 1.
// Rows and channels beyond the tile are packed as zeros, so the kernels may round up m to 16 and k
// to 32. Scores, probabilities before rounding, and all sums are f32.
#define LH_SIMD_NAMESPACE simd_avx512_bf16

#include "backend/cpu/simd/attention_bf16.h"

#include <immintrin.h>

#include "backend/cpu/simd/attention_lanes.h"
#include "backend/cpu/simd/probe_lanes.h"

namespace lh::cpu {
namespace LH_SIMD_NAMESPACE {
namespace {

constexpr int kPairLanes = 16;  // pairs in a register

inline int round_to(int x, int multiple) {
  return (x + multiple - 1) / multiple * multiple;
}

/// Registers of 32-bit pairs go through the float transposition as bits.
inline VecF as_lanes(__m512i v) {
  return bits_as<VecF>(v);
}
inline void store_pairs(uint32_t* p, __m512i v) {
  _mm512_storeu_si512(p, v);
}

/// The first `count` elements of a row, zeros behind; count <= 0 gives zeros without reading.
inline __m512i load_row32(const uint16_t* p, int count) {
  if (count >= 32) return _mm512_loadu_si512(p);
  if (count <= 0) return _mm512_setzero_si512();
  return _mm512_maskz_loadu_epi16((1u << count) - 1, p);
}
inline __m256i load_row16(const uint16_t* p, int count) {
  if (count >= 16) return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  if (count <= 0) return _mm256_setzero_si256();
  return _mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << count) - 1), p);
}

/// Pairs (row r, row r + 1) of 16 columns from c; rows beyond `rows` are zeros.
inline __m512i load_row_pairs(const uint16_t* src, int64_t stride, int rows, int cols, int r,
                              int c) {
  const __m256i even = load_row16(src + r * stride + c, r < rows ? cols - c : 0);
  const __m256i odd = load_row16(src + (r + 1) * stride + c, r + 1 < rows ? cols - c : 0);
  return _mm512_or_si512(_mm512_cvtepu16_epi32(even),
                         _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16));
}

void pack_left(const void* from, int64_t stride, int rows, int cols, int ld, void* plain,
               void* transposed) {
  const auto* src = static_cast<const uint16_t*>(from);
  if (plain != nullptr) {
    auto* dst = static_cast<uint16_t*>(plain);
    for (int r = 0; r < kTile; ++r)
      for (int c = 0; c < ld; c += 32)
        _mm512_storeu_si512(dst + r * ld + c,
                            load_row32(src + r * stride + c, r < rows ? cols - c : 0));
  }
  if (transposed != nullptr) {
    auto* dst = static_cast<uint32_t*>(transposed);  // [channel][key pair]
    for (int r = 0; r < kTile; r += 2 * kPairLanes) {
      for (int c = 0; c < ld; c += kPairLanes) {
        VecF square[kPairLanes];
#pragma GCC unroll 16
        for (int i = 0; i < kPairLanes; ++i)
          square[i] = as_lanes(load_row_pairs(src, stride, rows, cols, r + 2 * i, c));
        transpose(square);
#pragma GCC unroll 16
        for (int i = 0; i < kPairLanes; ++i)
          store_pairs(dst + (c + i) * (kTile / 2) + r / 2, bits_as<__m512i>(square[i]));
      }
    }
  }
}

void pack_right(const void* from, int64_t stride, int rows, int cols, int ld, void* plain,
                void* transposed) {
  const auto* src = static_cast<const uint16_t*>(from);
  if (plain != nullptr) {
    auto* dst = static_cast<uint32_t*>(plain);  // [query pair][channel]
    for (int r = 0; r < kTile; r += 2)
      for (int c = 0; c < ld; c += kPairLanes)
        store_pairs(dst + r / 2 * ld + c, load_row_pairs(src, stride, rows, cols, r, c));
  }
  if (transposed != nullptr) {
    auto* dst = static_cast<uint32_t*>(transposed);  // [channel pair][query]
    for (int r = 0; r < kTile; r += kPairLanes) {
      for (int c = 0; c < ld; c += 2 * kPairLanes) {
        VecF square[kPairLanes];
#pragma GCC unroll 16
        for (int i = 0; i < kPairLanes; ++i) {
          const int row = r + i;
          square[i] = as_lanes(load_row32(src + row * stride + c, row < rows ? cols - c : 0));
        }
        transpose(square);
#pragma GCC unroll 16
        for (int i = 0; i < kPairLanes; ++i)
          store_pairs(dst + (c / 2 + i) * kTile + r, bits_as<__m512i>(square[i]));
      }
    }
  }
}

/// bf16 pairs (low[i], high[i]), rounded to nearest even.
inline __m512i round_pairs(VecF low, VecF high) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, bits_as<__m512i>(_mm512_cvtne2ps_pbh(high, low)));
}
inline void store_bf16(uint16_t* p, VecF v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), bits_as<__m256i>(_mm512_cvtneps_pbh(v)));
}

/// Rows of a score operand from `rows` up to the next multiple of kRowMultiple take part in
/// products as zeros.
inline void zero_rows(void* operand, int rows) {
  auto* p = static_cast<uint16_t*>(operand);
  __builtin_memset(p + rows * kTile, 0,
                   static_cast<size_t>((round_to(rows, kRowMultiple) - rows) * kTile) * 2);
}

bool softmax(float* scores, int rows, int n, float scale, float* top, float* total, float* shrink,
             void* p_right) {
  auto* pairs = static_cast<uint32_t*>(p_right);
  zero_rows(p_right, round_to(rows, 2));
  return softmax_columns(scores, rows, n, scale, top, total, shrink,
                         [&](int r, int c, VecF p0, VecF p1) {
                           store_pairs(pairs + r / 2 * kTile + c, round_pairs(p0, p1));
                         });
}

void score_gradient(float* scores, float* dp, int rows, int n, float scale, const float* lse2,
                    const float* delta, bool keep_ds, void* p_left, void* ds_left,
                    void* ds_right) {
  auto *p = static_cast<uint16_t*>(p_left), *ds = static_cast<uint16_t*>(ds_left);
  auto* pairs = static_cast<uint32_t*>(ds_right);
  score_gradient_columns(scores, dp, rows, n, scale, lse2, delta,
                         [&](int r, int c, VecF p0, VecF p1, VecF ds0, VecF ds1) {
                           store_bf16(p + r * kTile + c, p0);
                           store_bf16(p + (r + 1) * kTile + c, p1);
                           store_bf16(ds + r * kTile + c, ds0);
                           store_bf16(ds + (r + 1) * kTile + c, ds1);
                           store_pairs(pairs + r / 2 * kTile + c, round_pairs(ds0, ds1));
                           if (!keep_ds) return;
                           store(dp + r * kTile + c, ds0, Full{});
                           store(dp + (r + 1) * kTile + c, ds1, Full{});
                         });
  zero_rows(p_left, round_to(rows, 2));
  zero_rows(ds_left, round_to(rows, 2));
  zero_rows(ds_right, round_to(rows, 2));
}

/// Stores rows r and r + 1 as pairs of a right operand.
auto put_pairs(void* operand) {
  return [pairs = static_cast<uint32_t*>(operand)](int r, int c, VecF x0, VecF x1) {
    store_pairs(pairs + r / 2 * kTile + c, round_pairs(x0, x1));
  };
}
/// Stores them as rows of a left operand.
auto put_rows(void* operand) {
  return [rows = static_cast<uint16_t*>(operand)](int r, int c, VecF x0, VecF x1) {
    store_bf16(rows + r * kTile + c, x0);
    store_bf16(rows + (r + 1) * kTile + c, x1);
  };
}
auto put_both(const SplitOperand& operand) {
  return [left = put_rows(operand.left), right = put_pairs(operand.right)](int r, int c, VecF x0,
                                                                          VecF x1) {
    left(r, c, x0, x1);
    right(r, c, x0, x1);
  };
}

bool softmax_probe(float* scores, float* u, int rows, int n, float scale,
                   const ProbeSums<float>& sums, void* p_right, void* pu_right) {
  zero_rows(p_right, round_to(rows, 2));
  zero_rows(pu_right, round_to(rows, 2));
  const auto put = put_pairs(p_right);
  // The weights stay in f32 too, for the second channel.
  const bool moved = softmax_columns(scores, rows, n, scale, sums.top, sums.total, sums.shrink,
                                     [&](int r, int c, VecF p0, VecF p1) {
                                       put(r, c, p0, p1);
                                       store(scores + r * kTile + c, p0, Full{});
                                       store(scores + (r + 1) * kTile + c, p1, Full{});
                                     });
  probe_columns(scores, u, rows, n, sums, put_pairs(pu_right));
  return moved;
}

void probe_gradient(float* scores, float* u, float* dp, int rows, int n, float scale,
                    float ds_scale, const ProbeStatistics<float>& statistics, void* w_left,
                    const SplitOperand& ds, const SplitOperand& du) {
  probe_gradient_columns(scores, u, dp, rows, n, scale, ds_scale, statistics, put_rows(w_left),
                         put_both(ds), put_both(du));
  void* const written[] = {w_left, ds.left, ds.right, du.left, du.right};
  for (void* operand : written) zero_rows(operand, round_to(rows, 2));
}

struct Operands {
  const uint16_t* a;
  int lda;
  const uint32_t* b;
  int ldb;
};

Operands row_operands(LeftTile a, const void* b, int ldb) {
  return {static_cast<const uint16_t*>(a.data) + a.first * a.ld, a.ld,
          static_cast<const uint32_t*>(b), ldb};
}
/// The transposed pack already is [channel][key].
Operands column_operands(LeftTile a, const void* b, int ldb) {
  return {static_cast<const uint16_t*>(a.data) + a.first, kTile, static_cast<const uint32_t*>(b),
          ldb};
}

/// kRows x kTiles tiles of 16 x 16 sums: tile registers 0-3 hold c, 4-5 a, 6-7 b.
template <int kRows, int kCols>
inline __attribute__((always_inline)) void amx_block(const Operands& o, float* c, int ldc, int k,
                                                     bool accumulate) {
  const int64_t c_bytes = int64_t{ldc} * 4, a_bytes = int64_t{o.lda} * 2,
                b_bytes = int64_t{o.ldb} * 4;
  const float* c_next = c + int64_t{16} * ldc;
  if (accumulate) {
    _tile_loadd(0, c, c_bytes);
    if (kCols > 1) _tile_loadd(1, c + 16, c_bytes);
    if (kRows > 1) _tile_loadd(2, c_next, c_bytes);
    if (kRows > 1 && kCols > 1) _tile_loadd(3, c_next + 16, c_bytes);
  } else {
    _tile_zero(0);
    if (kCols > 1) _tile_zero(1);
    if (kRows > 1) _tile_zero(2);
    if (kRows > 1 && kCols > 1) _tile_zero(3);
  }
  const uint16_t* a = o.a;
  const uint32_t* b = o.b;
  for (int x = 0; x < k; x += 32) {
    _tile_loadd(6, b, b_bytes);
    _tile_loadd(4, a, a_bytes);
    _tile_dpbf16ps(0, 4, 6);
    if (kCols > 1) {
      _tile_loadd(7, b + 16, b_bytes);
      _tile_dpbf16ps(1, 4, 7);
    }
    if (kRows > 1) {
      _tile_loadd(5, a + 16 * o.lda, a_bytes);
      _tile_dpbf16ps(2, 5, 6);
      if (kCols > 1) _tile_dpbf16ps(3, 5, 7);
    }
    a += 32;
    b += 16 * o.ldb;
  }
  _tile_stored(0, c, c_bytes);
  if (kCols > 1) _tile_stored(1, c + 16, c_bytes);
  if (kRows > 1) _tile_stored(2, const_cast<float*>(c_next), c_bytes);
  if (kRows > 1 && kCols > 1) _tile_stored(3, const_cast<float*>(c_next) + 16, c_bytes);
}

void amx_multiply(Operands o, float* c, int ldc, int m, int n, int k, bool accumulate) {
  asm volatile("" ::: "memory");  // the tile intrinsics do not name the memory they use
  for (int i = 0; i < m; i += 32) {
    Operands at = o;
    float* row = c;
    const bool two = m - i > 16;
    for (int j = 0; j < n; j += 32) {
      if (n - j > 16) {
        two ? amx_block<2, 2>(at, row, ldc, k, accumulate)
            : amx_block<1, 2>(at, row, ldc, k, accumulate);
      } else {
        two ? amx_block<2, 1>(at, row, ldc, k, accumulate)
            : amx_block<1, 1>(at, row, ldc, k, accumulate);
      }
      at.b += 32;
      row += 32;
    }
    o.a += 32 * o.lda;
    c += int64_t{32} * ldc;
  }
  asm volatile("" ::: "memory");
}

void amx_matmul_nn(LeftTile a, const void* b, int ldb, float* c, int ldc, int m, int n, int k,
                   bool accumulate) {
  amx_multiply(row_operands(a, b, ldb), c, ldc, m, n, k, accumulate);
}
void amx_matmul_tn(LeftTile a, const void* b, int ldb, float* c, int ldc, int m, int n, int k,
                   bool accumulate) {
  amx_multiply(column_operands(a, b, ldb), c, ldc, m, n, k, accumulate);
}

/// Palette 1: eight tiles of 16 rows of 64 bytes.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
constexpr TileConfig kTileConfig;  // not local: the intrinsic of g++ 12 does not say what it reads

void amx_begin() {
  _tile_loadconfig(&kTileConfig);
}
void amx_end() {
  _tile_release();
}

template <int kRows, int kVecs>
inline __attribute__((always_inline)) void dot_block(const Operands& o, float* c, int ldc, int k,
                                                     bool accumulate) {
  __m512 sum[kRows][kVecs];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kVecs; ++j)
      sum[i][j] = accumulate ? _mm512_loadu_ps(c + i * ldc + j * 16) : _mm512_setzero_ps();
  for (int x = 0; x < k; x += 2) {
    __m512i right[kVecs];
#pragma GCC unroll 4
    for (int j = 0; j < kVecs; ++j) right[j] = _mm512_loadu_si512(o.b + x / 2 * o.ldb + j * 16);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      int pair;
      __builtin_memcpy(&pair, o.a + i * o.lda + x, sizeof pair);
      const auto left = bits_as<__m512bh>(_mm512_set1_epi32(pair));
#pragma GCC unroll 4
      for (int j = 0; j < kVecs; ++j)
        sum[i][j] = _mm512_dpbf16_ps(sum[i][j], left, bits_as<__m512bh>(right[j]));
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kVecs; ++j) _mm512_storeu_ps(c + i * ldc + j * 16, sum[i][j]);
}

template <int kVecs>
void dot_columns(Operands o, float* c, int ldc, int m, int k, bool accumulate) {
  const auto block = [&]<int kRows>() {
    dot_block<kRows, kVecs>(o, c, ldc, k, accumulate);
    o.a += kRows * o.lda;
    c += kRows * ldc;
    m -= kRows;
  };
  while (m >= 6) block.template operator()<6>();
  if (m >= 4) block.template operator()<4>();
  if (m >= 2) block.template operator()<2>();
  if (m >= 1) block.template operator()<1>();
}

void dot_multiply(Operands o, float* c, int ldc, int m, int n, int k, bool accumulate) {
  for (; n >= 64; n -= 64, o.b += 64, c += 64) dot_columns<4>(o, c, ldc, m, k, accumulate);
  for (; n >= 32; n -= 32, o.b += 32, c += 32) dot_columns<2>(o, c, ldc, m, k, accumulate);
  for (; n > 0; n -= 16, o.b += 16, c += 16) dot_columns<1>(o, c, ldc, m, k, accumulate);
}

void dot_matmul_nn(LeftTile a, const void* b, int ldb, float* c, int ldc, int m, int n, int k,
                   bool accumulate) {
  dot_multiply(row_operands(a, b, ldb), c, ldc, m, n, k, accumulate);
}
void dot_matmul_tn(LeftTile a, const void* b, int ldb, float* c, int ldc, int m, int n, int k,
                   bool accumulate) {
  dot_multiply(column_operands(a, b, ldb), c, ldc, m, n, k, accumulate);
}

constexpr TileOps<float> make_ops(bool amx) {
  TileOps<float> ops{};
  ops.element_bytes = 2;
  ops.depth_multiple = 32;
  ops.column_multiple = 32;
  ops.shared_layouts = false;
  ops.thread_begin = amx ? amx_begin : no_setup;
  ops.thread_end = amx ? amx_end : no_setup;
  ops.pack_left = pack_left;
  ops.pack_right = pack_right;
  ops.matmul_nn = amx ? amx_matmul_nn : dot_matmul_nn;
  ops.matmul_tn = amx ? amx_matmul_tn : dot_matmul_tn;
  ops.mask = mask<float>;
  ops.add_bias = add_bias<float>;
  ops.add_row_sums = add_row_sums<float>;
  ops.softmax = softmax;
  ops.score_gradient = score_gradient;
  ops.softmax_probe = softmax_probe;
  ops.probe_gradient = probe_gradient;
  ops.scale_columns = scale_columns<float>;
  ops.store_columns = store_columns<uint16_t>;
  ops.store_rows = store_rows<uint16_t>;
  ops.row_dots = row_dots<uint16_t>;
  return ops;
}

constexpr TileOps<float> kAmx = make_ops(true), kDot = make_ops(false);

}  // namespace
}  // namespace LH_SIMD_NAMESPACE

const TileOps<float>& tile_ops_amx() {
  return LH_SIMD_NAMESPACE::kAmx;
}
const TileOps<float>& tile_ops_avx512_bf16() {
  return LH_SIMD_NAMESPACE::kDot;
}

}  // namespace lh::cpu
