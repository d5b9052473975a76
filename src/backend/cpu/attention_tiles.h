// The tile primitives that softmax attention is built of. Each instruction set and precision
// provides one table; the loop nests (attention_forward.cpp, attention_backward.cpp) and other
// mixers read the same for all of them.
//
// A score tile is kept transposed, [keys][queries]: keys are rows, queries are lanes. Row maxima
// and sums of the softmax then run across registers instead of inside one, and keys and values
// serve as left operands, which need no transposition in f32.
//
// Left operand of a product: rows are keys, packed from a [keys, channels] tile of k or v, or a
// score tile. Right operand: packed from a [queries, channels] tile of q or d_out, or a score tile.
// Their memory layout belongs to the table: plain f32 rows, or bf16 in the pairs that the dot
// product instructions read.
#pragma once

#include <cstdint>

namespace lh::cpu {

/// Queries and keys of a tile. Score tiles have this leading dimension too.
inline constexpr int kTile = 64;

/// A packed left operand, of which rows (tile_matmul_nn) or contraction indices (tile_matmul_tn)
/// from `first` on are used; first is a multiple of kRowMultiple.
struct LeftTile {
  const void* data;
  int ld;
  int first;
};
inline constexpr int kRowMultiple = 32;

/// A score tile in both layouts.
struct SplitOperand {
  void *left, *right;
};

/// Running sums of the queries of a tile whose values have a second channel (TileOps::softmax_probe).
template <typename Real>
struct ProbeSums {
  Real *top, *total, *shrink;  // as in TileOps::softmax
  Real* center;                // what is taken off every probe score of the query
  Real* probe_total;           // sum of p (u - center)
};

/// What the gradient of a second channel knows of each query (TileOps::probe_gradient).
template <typename Real>
struct ProbeStatistics {
  Real* lse2;              // in units of log2; inf for a query that sees nothing
  Real* delta;             // d_out . out
  Real* intercept_delta;   // d_out . intercept
  Real* probe_mean;        // sum of softmax weight times u
};

/// Real: type of scores and sums. n is a multiple of column_multiple; m and k are exact, and
/// operands are padded so that a table may round them up.
template <typename Real>
struct TileOps {
  int element_bytes;    // of the tensors that are packed from and stored to
  int depth_multiple;   // channels are padded to a multiple of this, with zeros
  int column_multiple;  // so are the queries of a tile
  bool shared_layouts;  // plain and transposed left operands are the same bytes, and score tiles
                        // are operands as they are

  /// Once in every thread, around all other calls.
  void (*thread_begin)();
  void (*thread_end)();

  /// Packs rows x cols elements at src (stride in elements) into kTile x ld. `plain` is for
  /// tile_matmul_nn, `transposed` for tile_matmul_tn; nullptr where not wanted.
  void (*pack_left)(const void* src, int64_t stride, int rows, int cols, int ld, void* plain,
                    void* transposed);
  /// `plain`: contraction over queries; `transposed`: contraction over channels, queries as lanes.
  void (*pack_right)(const void* src, int64_t stride, int rows, int cols, int ld, void* plain,
                     void* transposed);

  /// c[m][n] (+)= a[m][k] b[k][n].
  void (*matmul_nn)(LeftTile a, const void* b, int ldb, Real* c, int ldc, int m, int n, int k,
                    bool accumulate);
  /// c[m][n] (+)= a[k][m]^T b[k][n].
  void (*matmul_tn)(LeftTile a, const void* b, int ldb, Real* c, int ldc, int m, int n, int k,
                    bool accumulate);

  /// Row r of the scores keeps columns [begin[r], end[r]); the others become -inf.
  void (*mask)(Real* scores, int rows, int n, const int* begin, const int* end);

  /// scores[r][c] += bias[r] for columns c from first[r] on.
  void (*add_bias)(Real* scores, int rows, int n, const Real* bias, const int* first);
  /// sums[r] += sum of x[r][c] over columns c from first[r] on.
  void (*add_row_sums)(const Real* x, int rows, int n, const int* first, double* sums);

  /// One step of the online softmax: p = 2^(scores * scale - top), written as a right operand.
  /// top and total are the running reference (in units of log2) and sum of each query; sums of
  /// earlier tiles must be multiplied by shrink[n] when the result is true. The reference follows
  /// the maximum only when it lags by more than kSlack, so that this is rare.
  bool (*softmax)(Real* scores, int rows, int n, Real scale, Real* top, Real* total, Real* shrink,
                  void* p_right);
  /// p = 2^(scores * scale - lse2), ds = p (dp - delta): p as left operand, ds as both. ds also
  /// replaces dp where keep_ds (and where shared_layouts).
  void (*score_gradient)(Real* scores, Real* dp, int rows, int n, Real scale, const Real* lse2,
                         const Real* delta, bool keep_ds, void* p_left, void* ds_left,
                         void* ds_right);

  /// softmax() for values with a second channel: u are the probe scores of the same pairs, and
  /// p (u - center) goes to pu_right. The center is the weighted mean of u in the first tile of
  /// which the query sees a key, so that rounding p (u - center) costs little wherever u lies.
  /// Overwrites scores and u.
  bool (*softmax_probe)(Real* scores, Real* u, int rows, int n, Real scale,
                        const ProbeSums<Real>& sums, void* p_right, void* pu_right);
  /// With p = 2^(scores * scale - lse2), e = probe_mean - u and b = dp - intercept_delta:
  /// w = p (1 + e), ds = ds_scale p (dp - delta + e b), du = -p b; w as left operand, the others as
  /// both.
  void (*probe_gradient)(Real* scores, Real* u, Real* dp, int rows, int n, Real scale,
                         Real ds_scale, const ProbeStatistics<Real>& statistics, void* w_left,
                         const SplitOperand& ds, const SplitOperand& du);

  /// c[d][n] *= factor[n], leading dimension kTile.
  void (*scale_columns)(Real* c, int d, int n, const Real* factor);
  /// dst[r][i] = c[i][r] * factor[r], leading dimension of c kTile.
  void (*store_columns)(const Real* c, int rows, int cols, const Real* factor, void* dst,
                        int64_t stride);
  /// dst[r][i] = c[r][i] * factor.
  void (*store_rows)(const Real* c, int ldc, int rows, int cols, Real factor, void* dst,
                     int64_t stride);
  /// result[r] = sum_i a[r][i] b[r][i].
  void (*row_dots)(const void* a, int64_t stride_a, const void* b, int64_t stride_b, int rows,
                   int cols, Real* result);
};

/// log2 of how far the softmax reference may lag behind the maximum: sums stay below 2^8 keys.
inline constexpr int kSoftmaxSlack = 8;

}  // namespace lh::cpu
