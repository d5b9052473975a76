// Moves rows between the processes of a context-parallel group: each process holds some rows of a
// tensor and receives the rows it needs. All rows of earlier processes make it an all-gather of keys and
// values (its transpose a reduce-scatter), the rows left of its own a halo; packed documents ask for no
// more than their own.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "autograd/variable.h"
#include "dist/communicator.h"
#include "parallel/row_ranges.h"

namespace lh {

/// Who sends which rows to whom, the same on every process but for `rank`.
class RowExchange {
 public:
  /// held[r] and needed[r]: the rows that process r has and wants. Every needed row is held by
  /// exactly one process.
  RowExchange(const std::vector<RowSet>& held, const std::vector<RowSet>& needed, int rank);

  int64_t held_rows() const { return held_rows_; }
  int64_t needed_rows() const { return needed_rows_; }
  /// Rows that go to and come from process r, as ranges of the local tensors: `held` ones to send,
  /// `needed` ones to receive. With r = rank: the rows that stay.
  const RowSet& sent(int r) const { return sent_[static_cast<size_t>(r)]; }
  const RowSet& received(int r) const { return received_[static_cast<size_t>(r)]; }
  int ranks() const { return static_cast<int>(sent_.size()); }
  int rank() const { return rank_; }

  /// Rows this process sends to others, forward; backward sends those it received.
  int64_t rows_sent() const;

 private:
  int rank_;
  int64_t held_rows_, needed_rows_;
  std::vector<RowSet> sent_, received_;
};

/// x [held rows, ...] -> [needed rows, ...], rows in ascending order. All processes call it in the
/// same order.
Tensor gather_rows(const Tensor& x, const RowExchange& exchange, Communicator& group,
                   const std::string& label);

/// gather_rows with a gradient: each row's goes home, where those of one row are added in the order
/// of the processes, in f32 (f64 for f64).
Variable exchange_rows(const Variable& x, std::shared_ptr<const RowExchange> exchange,
                       Communicator& group, const std::string& label);

}  // namespace lh
