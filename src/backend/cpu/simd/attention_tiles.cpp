#include "backend/cpu/simd/attention_tiles.h"

#include "backend/cpu/simd/attention_lanes.h"
#include "backend/cpu/simd/probe_lanes.h"

namespace lh::cpu::LH_SIMD_NAMESPACE {
namespace {

// Rows and registers of the block of c that stays in registers.
#if defined(__AVX512F__)
inline constexpr int kBlockRows = 6, kBlockVecs = 4;
#else
inline constexpr int kBlockRows = 6, kBlockVecs = 2;
#endif

/// c[kRows][kVecs registers] (+)= sum over k of a(i, k) b[k], a(i, k) at i * step_i + k * step_k.
template <typename Real, int kRows, int kVecs>
inline __attribute__((always_inline)) void multiply_block(const Real* a, int64_t step_i,
                                                          int64_t step_k, const Real* b, int ldb,
                                                          Real* c, int64_t ldc, int k,
                                                          bool accumulate) {
  using V = vec_t<Real>;
  constexpr int kLanes = Compute<Real>::kLanes;
  V sum[kRows][kVecs];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kVecs; ++j)
      sum[i][j] = accumulate ? load(c + i * ldc + j * kLanes, Full{}) : V{};
  for (int x = 0; x < k; ++x) {
    V right[kVecs];
#pragma GCC unroll 4
    for (int j = 0; j < kVecs; ++j) right[j] = load(b + j * kLanes, Full{});
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const V left = splat<V>(a[i * step_i]);
#pragma GCC unroll 4
      for (int j = 0; j < kVecs; ++j) sum[i][j] += left * right[j];
    }
    a += step_k;
    b += ldb;
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kVecs; ++j) store(c + i * ldc + j * kLanes, sum[i][j], Full{});
}

template <typename Real, int kVecs>
void multiply_columns(const Real* a, int64_t step_i, int64_t step_k, const Real* b, int ldb,
                      Real* c, int64_t ldc, int m, int k, bool accumulate) {
  const auto block = [&]<int kRows>() {
    multiply_block<Real, kRows, kVecs>(a, step_i, step_k, b, ldb, c, ldc, k, accumulate);
    a += kRows * step_i;
    c += kRows * ldc;
    m -= kRows;
  };
  while (m >= kBlockRows) block.template operator()<kBlockRows>();
  if (m >= 4) block.template operator()<4>();
  if (m >= 2) block.template operator()<2>();
  if (m >= 1) block.template operator()<1>();
}

template <typename Real>
void multiply(const Real* a, int64_t step_i, int64_t step_k, const Real* b, int ldb, Real* c,
              int64_t ldc, int m, int n, int k, bool accumulate) {
  constexpr int kLanes = Compute<Real>::kLanes;
  int j = 0;
  for (; j + kBlockVecs * kLanes <= n; j += kBlockVecs * kLanes)
    multiply_columns<Real, kBlockVecs>(a, step_i, step_k, b + j, ldb, c + j, ldc, m, k, accumulate);
  if (kBlockVecs > 2 && j + 2 * kLanes <= n) {
    multiply_columns<Real, 2>(a, step_i, step_k, b + j, ldb, c + j, ldc, m, k, accumulate);
    j += 2 * kLanes;
  }
  for (; j < n; j += kLanes)
    multiply_columns<Real, 1>(a, step_i, step_k, b + j, ldb, c + j, ldc, m, k, accumulate);
}

// Left operands are rows of Real; the transposed product reads them by columns.
template <typename Real>
void matmul_nn(LeftTile a, const void* b, int ldb, Real* c, int ldc, int m, int n, int k,
               bool accumulate) {
  multiply(static_cast<const Real*>(a.data) + int64_t{a.first} * a.ld, a.ld, 1,
           static_cast<const Real*>(b), ldb, c, ldc, m, n, k, accumulate);
}
template <typename Real>
void matmul_tn(LeftTile a, const void* b, int ldb, Real* c, int ldc, int m, int n, int k,
               bool accumulate) {
  multiply(static_cast<const Real*>(a.data) + int64_t{a.first} * a.ld, 1, a.ld,
           static_cast<const Real*>(b), ldb, c, ldc, m, n, k, accumulate);
}

/// Copies and converts rows; columns from cols to ld become 0.
template <typename T>
void copy_rows(const T* src, int64_t stride, int rows, int cols, int ld, scalar_t<T>* dst) {
  for (int r = 0; r < rows; ++r) {
    scalar_t<T>* row = dst + int64_t{r} * ld;
    for_lanes<T>(cols, [&](int64_t i, auto tail) {
      store(row + i, load(src + r * stride + i, tail), Full{});
    });
    for (int i = cols; i < ld; ++i) row[i] = 0;
  }
}

template <typename T>
void pack_left(const void* src, int64_t stride, int rows, int cols, int ld, void* plain,
               void* transposed) {
  copy_rows(static_cast<const T*>(src), stride, rows, cols, ld,
            static_cast<scalar_t<T>*>(plain != nullptr ? plain : transposed));
}
template <typename T>
void pack_right(const void* src, int64_t stride, int rows, int cols, int ld, void* plain,
                void* transposed) {
  using Real = scalar_t<T>;
  if (plain != nullptr) {
    copy_rows(static_cast<const T*>(src), stride, rows, cols, ld, static_cast<Real*>(plain));
    for (int64_t i = int64_t{rows} * ld; i < int64_t{kTile} * ld; ++i)
      static_cast<Real*>(plain)[i] = 0;
  }
  if (transposed != nullptr) {
    Real* lanes = static_cast<Real*>(transposed);
    transpose_tile(static_cast<const T*>(src), stride, rows, cols, lanes, kTile);
    constexpr int kLanes = Compute<Real>::kLanes;
    const int written = (rows + kLanes - 1) / kLanes * kLanes;
    for (int c = 0; c < cols && written < kTile; ++c)
      for (int r = written; r < kTile; ++r) lanes[c * kTile + r] = 0;
  }
}

template <typename Real>
bool softmax(Real* scores, int rows, int n, Real scale, Real* top, Real* total, Real* shrink,
             void*) {
  return softmax_columns(scores, rows, n, scale, top, total, shrink,
                         [&](int r, int c, auto p0, auto p1) {
                           store(scores + r * kTile + c, p0, Full{});
                           if (r + 1 < rows) store(scores + (r + 1) * kTile + c, p1, Full{});
                         });
}

template <typename Real>
void score_gradient(Real* scores, Real* dp, int rows, int n, Real scale, const Real* lse2,
                    const Real* delta, bool, void*, void*, void*) {
  score_gradient_columns(scores, dp, rows, n, scale, lse2, delta,
                         [&](int r, int c, auto p0, auto p1, auto ds0, auto ds1) {
                           store(scores + r * kTile + c, p0, Full{});
                           store(dp + r * kTile + c, ds0, Full{});
                           if (r + 1 >= rows) return;
                           store(scores + (r + 1) * kTile + c, p1, Full{});
                           store(dp + (r + 1) * kTile + c, ds1, Full{});
                         });
}

/// Stores rows r and r + 1 of a tile; the last may be missing.
template <typename Real>
auto put_rows(Real* tile, int rows) {
  return [=](int r, int c, auto x0, auto x1) {
    store(tile + r * kTile + c, x0, Full{});
    if (r + 1 < rows) store(tile + (r + 1) * kTile + c, x1, Full{});
  };
}

template <typename Real>
bool softmax_probe(Real* scores, Real* u, int rows, int n, Real scale, const ProbeSums<Real>& sums,
                   void*, void*) {
  const bool moved = softmax_columns(scores, rows, n, scale, sums.top, sums.total, sums.shrink,
                                     put_rows(scores, rows));
  probe_columns(scores, u, rows, n, sums, put_rows(u, rows));
  return moved;
}

template <typename Real>
void probe_gradient(Real* scores, Real* u, Real* dp, int rows, int n, Real scale, Real ds_scale,
                    const ProbeStatistics<Real>& statistics, void*, const SplitOperand&,
                    const SplitOperand&) {
  probe_gradient_columns(scores, u, dp, rows, n, scale, ds_scale, statistics,
                         put_rows(scores, rows), put_rows(dp, rows), put_rows(u, rows));
}

template <typename T>
constexpr TileOps<scalar_t<T>> make_ops() {
  using Real = scalar_t<T>;
  TileOps<Real> ops{};
  ops.element_bytes = sizeof(T);
  ops.depth_multiple = 16;
  ops.column_multiple = 16;
  ops.shared_layouts = true;
  ops.thread_begin = no_setup;
  ops.thread_end = no_setup;
  ops.pack_left = pack_left<T>;
  ops.pack_right = pack_right<T>;
  ops.matmul_nn = matmul_nn<Real>;
  ops.matmul_tn = matmul_tn<Real>;
  ops.mask = mask<Real>;
  ops.add_bias = add_bias<Real>;
  ops.add_row_sums = add_row_sums<Real>;
  ops.softmax = softmax<Real>;
  ops.score_gradient = score_gradient<Real>;
  ops.softmax_probe = softmax_probe<Real>;
  ops.probe_gradient = probe_gradient<Real>;
  ops.scale_columns = scale_columns<Real>;
  ops.store_columns = store_columns<T>;
  ops.store_rows = store_rows<T>;
  ops.row_dots = row_dots<T>;
  return ops;
}

constexpr TileOps<float> kF32 = make_ops<float>(), kBf16 = make_ops<uint16_t>();
constexpr TileOps<double> kF64 = make_ops<double>();

}  // namespace

const TileOps<float>& tile_ops_f32() {
  return kF32;
}
const TileOps<float>& tile_ops_bf16() {
  return kBf16;
}
const TileOps<double>& tile_ops_f64() {
  return kF64;
}

}  // namespace lh::cpu::LH_SIMD_NAMESPACE
