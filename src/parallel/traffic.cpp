#include "parallel/traffic.h"

namespace lh {
namespace {

int64_t piece(int64_t rows, int64_t pieces, int64_t i) {
  return rows * (i + 1) / pieces - rows * i / pieces;
}

}  // namespace

int64_t rows_of_rank(int64_t rows, int ranks, int rank, ContextOrder order) {
  const int64_t n = ranks, r = rank;
  if (order == ContextOrder::kContiguous) return piece(rows, n, r);
  return piece(rows, 2 * n, r) + piece(rows, 2 * n, 2 * n - 1 - r);
}

int64_t gather_rows_moved(int64_t rows, int ranks, int rank, ContextOrder order) {
  const int64_t n = ranks, r = rank;
  // Forward this process's rows go to whoever has a later row; backward a gradient goes to every earlier one.
  if (order == ContextOrder::kContiguous) return piece(rows, n, r) * (n - 1 - r) + rows * r / n;
  // The early piece is before the late piece of all, the late one before that of the processes before r.
  const int64_t early = piece(rows, 2 * n, r), late = piece(rows, 2 * n, 2 * n - 1 - r);
  return early * (n - 1) + late * r + rows * (2 * n - 1 - r) / (2 * n) - early;
}

int64_t halo_rows_moved(int64_t window, int ranks, int rank) {
  return (window - 1) * ((rank + 1 < ranks ? 1 : 0) + (rank > 0 ? 1 : 0));
}

int64_t head_trade_bytes(int64_t rows, int ranks, int rank, ContextOrder order, int64_t row_bytes) {
  const int64_t mine = rows_of_rank(rows, ranks, rank, order);
  return row_bytes / ranks * (mine * (ranks - 1) + rows - mine);
}

int64_t affine_scan_bytes(int64_t runs, int ranks, int64_t a_bytes, int64_t b_bytes) {
  return runs * (ranks - 1) * (a_bytes + 2 * b_bytes);
}

int64_t all_reduce_bytes(int64_t elements, int ranks, int rank, int64_t element_bytes) {
  const int64_t own = piece(elements, ranks, rank);
  return element_bytes * (elements - own + (ranks - 1) * own);
}

}  // namespace lh
