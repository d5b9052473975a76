#include "backend/cuda/cudnn_attention_graph.h"

#include <limits>

namespace lh::cuda::cudnn {
namespace {

constexpr cudnnDataType_t kF32 = CUDNN_DATA_FLOAT, kBF16 = CUDNN_DATA_BFLOAT16,
                          kI32 = CUDNN_DATA_INT32, kBool = CUDNN_DATA_BOOLEAN;

/// The graph of one shape, with names for its tensors.
class Builder {
 public:
  explicit Builder(const AttentionShape& shape) : s(shape) {}

  /// [batch, heads, length, d] of tokens `stride` apart.
  int tokens(int64_t heads, int64_t d, int64_t stride) {
    return graph.tensor(kBF16, {s.batch, heads, s.length, d}, {s.length * stride, d, stride, 1});
  }
  /// The same with the last two dimensions exchanged.
  int tokens_transposed(int64_t heads, int64_t d, int64_t stride) {
    return graph.tensor(kBF16, {s.batch, heads, d, s.length}, {s.length * stride, d, 1, stride});
  }
  /// lse [tokens, heads].
  int lse() {
    return graph.tensor(kF32, {s.batch, s.heads, s.length, 1},
                        {s.length * s.heads, 1, s.heads, 1});
  }
  int scores(cudnnDataType_t type = kF32) { return graph.hidden(type, score_dims()); }
  /// A number per query.
  int per_row() { return graph.hidden(kF32, {s.batch, s.heads, s.length, 1}); }
  Dims score_dims() const { return {s.batch, s.heads, s.length, s.length}; }

  int unary(cudnnPointwiseMode_t mode, int x, int y) {
    graph.pointwise(mode, x, -1, -1, y);
    return y;
  }
  int binary(cudnnPointwiseMode_t mode, int x, int b, int y) {
    graph.pointwise(mode, x, b, -1, y);
    return y;
  }

  /// scale q k^T.
  int scaled_scores(int q, int k_transposed, int scale) {
    const int products = scores();
    graph.matmul(q, k_transposed, products);
    return binary(CUDNN_POINTWISE_MUL, products, scale, scores());
  }

  /// x where key <= query and query - key < window, else -inf.
  int masked(int x) {
    const int minus_infinity = graph.constant(-std::numeric_limits<float>::infinity());
    x = selected(x, index(x, 2), CUDNN_POINTWISE_CMP_GE, index(x, 3), minus_infinity);
    if (s.window == 0) return x;
    const int bound = graph.constant(static_cast<float>(s.window));
    const int shifted = scores();
    graph.pointwise(CUDNN_POINTWISE_ADD, index(x, 3), bound, -1, shifted, kF32, 3);
    return selected(x, shifted, CUDNN_POINTWISE_CMP_GT, index(x, 2), minus_infinity);
  }

  /// [batch, heads, key, query] as a view of x [batch, heads, query, key], rounded to bf16.
  int transposed(int x) {
    const int64_t n = s.length;
    const int y = graph.hidden(kBF16, score_dims(), {s.heads * n * n, n * n, 1, n});
    graph.reshape(x, y);
    return y;
  }

  /// a b for every query head, summed into the heads of keys.
  void matmul_to_kv_heads(int a, int b, int64_t d, int into) {
    if (s.heads == s.kv_heads) return graph.matmul(a, b, into);
    const int all = graph.hidden(kBF16, {s.batch, s.heads, s.length, d});
    graph.matmul(a, b, all);
    graph.reduce(CUDNN_REDUCE_TENSOR_ADD, all, into);
  }

  const AttentionShape& s;
  Graph graph;

 private:
  int index(int x, int axis) {
    const int y = scores(kI32);
    graph.pointwise(CUDNN_POINTWISE_GEN_INDEX, x, -1, -1, y, kF32, axis);
    return y;
  }
  int selected(int x, int left, cudnnPointwiseMode_t compare, int right, int otherwise) {
    const int seen = scores(kBool), y = scores();
    graph.pointwise(compare, left, right, -1, seen, kBool);
    graph.pointwise(CUDNN_POINTWISE_BINARY_SELECT, x, otherwise, seen, y);
    return y;
  }
};

}  // namespace

AttentionForward attention_forward(const AttentionShape& s, Descriptor device) {
  AttentionForward f;
  Builder b(s);
  Graph& g = b.graph;
  f.q = b.tokens(s.heads, s.head_dim, s.q_stride);
  f.k = b.tokens_transposed(s.kv_heads, s.head_dim, s.k_stride);
  f.v = b.tokens(s.kv_heads, s.value_dim, s.v_stride);
  f.out = b.tokens(s.heads, s.value_dim, s.out_stride);
  f.lse = b.lse();

  const int z = b.masked(b.scaled_scores(f.q, f.k, g.constant(s.scale)));
  const int largest = b.per_row(), sum = b.per_row();
  g.reduce(CUDNN_REDUCE_TENSOR_MAX, z, largest);
  const int shifted = b.binary(CUDNN_POINTWISE_SUB, z, largest, b.scores());
  const int e = b.unary(CUDNN_POINTWISE_EXP, shifted, b.scores());
  g.reduce(CUDNN_REDUCE_TENSOR_ADD, e, sum);
  const int log_sum = b.unary(CUDNN_POINTWISE_LOG, sum, b.per_row());
  b.binary(CUDNN_POINTWISE_ADD, largest, log_sum, f.lse);
  const int p = b.binary(CUDNN_POINTWISE_DIV, e, sum, b.scores(kBF16));
  g.matmul(p, f.v, f.out);
  f.plan = g.build(std::move(device));
  return f;
}

// With P = exp(z - lse) and D = sum of d_out * out per row: dV = P^T dO, dS = scale P (dO V^T - D),
// dK = dS^T Q, dQ = dS K.
AttentionBackward attention_backward(const AttentionShape& s, Descriptor device) {
  AttentionBackward r;
  Builder b(s);
  Graph& g = b.graph;
  r.q = b.tokens(s.heads, s.head_dim, s.q_stride);
  r.k = b.tokens_transposed(s.kv_heads, s.head_dim, s.k_stride);
  r.v = b.tokens_transposed(s.kv_heads, s.value_dim, s.v_stride);
  r.out = b.tokens(s.heads, s.value_dim, s.out_stride);
  r.d_out = b.tokens(s.heads, s.value_dim, s.d_out_stride);
  r.lse = b.lse();
  r.dq = b.tokens(s.heads, s.head_dim, s.dq_stride);
  r.dk = b.tokens(s.kv_heads, s.head_dim, s.dk_stride);
  r.dv = b.tokens(s.kv_heads, s.value_dim, s.dv_stride);
  const int64_t n = s.length;
  r.row_sums = g.tensor(kF32, {s.batch, s.heads, n, 1}, {s.heads * n, n, 1, 1});
  r.dq_sum = g.tensor(kF32, {s.batch, s.heads, n, s.head_dim},
                      {s.heads * n * s.head_dim, n * s.head_dim, s.head_dim, 1});
  const int scale = g.constant(s.scale), one = g.constant(1);

  const int products = b.binary(CUDNN_POINTWISE_MUL, r.d_out, r.out,
                                g.hidden(kF32, {s.batch, s.heads, n, s.value_dim}));
  const int sums = b.per_row();
  g.reduce(CUDNN_REDUCE_TENSOR_ADD, products, sums);
  // The factor is that of dropout, 1 without it: the pattern cuDNN knows has it.
  b.binary(CUDNN_POINTWISE_MUL, sums, one, r.row_sums);

  const int z = b.scaled_scores(r.q, r.k, scale);
  const int p = b.unary(CUDNN_POINTWISE_EXP,
                        b.masked(b.binary(CUDNN_POINTWISE_SUB, z, r.lse, b.scores())), b.scores());
  b.matmul_to_kv_heads(b.transposed(p), r.d_out, s.value_dim, r.dv);

  const int dp = b.scores();
  g.matmul(r.d_out, r.v, dp);
  const int centred = b.binary(CUDNN_POINTWISE_SUB, dp, r.row_sums, b.scores());
  const int weighted = b.binary(CUDNN_POINTWISE_MUL, centred, p, b.scores());
  const int ds = b.binary(CUDNN_POINTWISE_MUL, weighted, scale, b.scores(kBF16));
  b.matmul_to_kv_heads(b.transposed(ds), r.q, s.head_dim, r.dk);

  const int k = g.hidden(kBF16, {s.batch, s.kv_heads, n, s.head_dim},
                         {n * s.k_stride, s.head_dim, s.k_stride, 1});
  g.reshape(r.k, k);
  g.matmul(ds, k, r.dq_sum);
  b.unary(CUDNN_POINTWISE_IDENTITY, r.dq_sum, r.dq);
  r.plan = g.build(std::move(device));
  return r;
}

}  // namespace lh::cuda::cudnn
