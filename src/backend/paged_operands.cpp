#include "backend/paged_operands.h"

namespace lh {
namespace {

/// [rows, heads, d] of a dtype, heads and channels contiguous.
void check_heads(const Tensor& t, const Shape& shape, DType dtype, std::string_view op,
                 std::string_view name) {
  check_shape(t, shape, op, name);
  check_dtype(t, dtype, op, name);
  row_view(t, 1, op, name);
}

void check_array(const Tensor& t, const Shape& shape, DType dtype, std::string_view op,
                 std::string_view name) {
  check_shape(t, shape, op, name);
  check_dtype(t, dtype, op, name);
  check_contiguous(t, op, name);
}

void check_paged_keys(const PagedKeys& keys, std::string_view op) {
  check_rank(keys.k, 3, op, "k");
  check_rank(keys.v, 3, op, "v");
  check_rank(keys.table, 2, op, "table");
  check_contiguous(keys.k, op, "k");
  check_array(keys.v, {keys.k.size(0), keys.k.size(1), keys.v.size(2)}, keys.k.dtype(), op, "v");
  check_array(keys.table, keys.table.shape(), DType::kI32, op, "table");
  check_array(keys.lengths, {keys.table.size(0)}, DType::kI32, op, "lengths");
  const int64_t rows = keys.k.size(1);
  if (rows < 16 || (rows & (rows - 1)) != 0)
    fail<ShapeError>("[{}] k: expected pages of a power of two of at least 16 rows, got {}", op,
                     keys.k.str());
}

}  // namespace

void check_paged_attention(const Tensor& q, const PagedKeys& keys, double scale, const Tensor& out,
                           const Tensor& lse, std::string_view op) {
  check_paged_keys(keys, op);
  check_rank(q, 3, op, "q");
  const int64_t sequences = keys.table.size(0), heads = q.size(1);
  check_heads(q, {sequences, heads, keys.k.size(2)}, keys.k.dtype(), op, "q");
  check_heads(out, {sequences, heads, keys.v.size(2)}, keys.k.dtype(), op, "out");
  check_sum(lse, {sequences, heads}, q.dtype(), op, "lse");
  if (!(scale > 0)) fail<ShapeError>("[{}] expected scale > 0, got {}", op, scale);
  if (static_cast<int64_t>(keys.capacities.size()) != sequences)
    fail<ShapeError>("[{}] expected the capacities of {} sequences, got {}", op, sequences,
                     keys.capacities.size());
}

void check_gated_append(const Tensor& k, const Tensor& v, const Tensor& gates,
                        const GatedCache& cache, std::string_view op) {
  check_paged_keys(cache.keys, op);
  check_rank(k, 3, op, "new k");
  check_rank(cache.bits, 2, op, "bits");
  const int64_t tokens = k.size(0), heads = cache.keys.table.size(0);
  check_heads(k, {tokens, heads, cache.keys.k.size(2)}, cache.keys.k.dtype(), op, "new k");
  check_heads(v, {tokens, heads, cache.keys.v.size(2)}, cache.keys.k.dtype(), op, "new v");
  check_sum(gates, {tokens, heads}, k.dtype(), op, "gates");
  check_array(cache.seen, {heads}, DType::kI32, op, "seen");
  check_array(cache.bits, {heads, cache.bits.size(1)}, DType::kU8, op, "bits");
  const int64_t most = cache.keys.table.size(1) * cache.keys.k.size(1);
  if (cache.bits.size(1) < 1 || cache.bits.size(1) > most)
    fail<ShapeError>("[{}] bits: expected a window from 1 to the {} keys of a head, got {}", op,
                     most, cache.bits.str());
}

}  // namespace lh
