// How many bytes a process sends for each way of splitting sequences and summing over processes, in closed
// form, from what has to move rather than from the code that moves it: the communicator's counters are tested against it.
//
// n processes, r this one; T rows of a micro-batch, t_r of them here, e bytes of an element. H query heads, G key and
// value heads of width d (values d_v). One training step: forward and backward; recompute repeats the forward part.
//
//   scheme                      bytes sent                                         with equal shares
//   gather of keys and values   e G (d + d_v) (rows of r that others see           contiguous, mean: T (n - 1) / n rows
//                                 + rows of others that r sees)                    zigzag, each: 3/2 T (n - 1) / n rows
//   trade of heads (Ulysses)    e (H (d + d_v) + G (d + d_v)) / n                  2 T (n - 1) / n^2 rows of all heads
//                                 (t_r (n - 1) + T - t_r)
//   window of w keys (halo)     as the gather, of the w - 1 rows before each run   2 (w - 1) rows, the ends w - 1
//   affine scan of states       e runs_r (n - 1) (|A| + 2 |B|)                     the same; |B| = h k v, |A| = h, h k, h k k
//   all-reduce of N elements    e (N - N_r + (n - 1) N_r)                          2 e N (n - 1) / n
//
// The forward part sends what is seen, backward its gradient the opposite way: so the first two are the all-gather with its
// reduce-scatter, and an all-to-all with its inverse. Only rows of one document see each other, and packed
// documents that lie within one process send nothing. A gather does not depend on n while a trade shrinks with it: with
// d = d_v and zigzag the trade of one document moves less from n > 4 (H + G) / (3 G).
#pragma once

#include <cstdint>

#include "parallel/row_ranges.h"

namespace lh {

/// Rows of all `rows` that process `rank` of `ranks` holds: t_r.
int64_t rows_of_rank(int64_t rows, int ranks, int rank, ContextOrder order);

/// Rows that a process sends, there and back, where every query of one document of `rows` >= 2 ranks rows sees all
/// earlier keys. Times e G (d + d_v).
int64_t gather_rows_moved(int64_t rows, int ranks, int rank, ContextOrder order);

/// The same for a window of `window` keys over contiguous pieces, none of which is shorter than the window.
int64_t halo_rows_moved(int64_t window, int ranks, int rank);

/// Bytes of one tensor that changes from rows to heads, or back, and of its gradient. row_bytes: e heads width.
int64_t head_trade_bytes(int64_t rows, int ranks, int rank, ContextOrder order, int64_t row_bytes);

/// Bytes of a scan: a_bytes and b_bytes of one run's transition and contribution.
int64_t affine_scan_bytes(int64_t runs, int ranks, int64_t a_bytes, int64_t b_bytes);

/// Bytes of an all-reduce, in which process r sums and spreads elements [N r / n, N (r + 1) / n).
int64_t all_reduce_bytes(int64_t elements, int ranks, int rank, int64_t element_bytes);

}  // namespace lh
