// Where the rows of a step's packed documents live in a context-parallel group, and what attention over
// them needs from other processes. Made once per step, shared by all layers.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "backend/attention.h"
#include "dist/communicator.h"
#include "parallel/row_exchange.h"

namespace lh {

/// Attention of this process's queries to keys and values that `exchange` brings together.
struct GatheredAttention {
  std::shared_ptr<const RowExchange> exchange;
  std::shared_ptr<const AttentionPlan> plan;
};

class ContextLayout {
 public:
  /// offsets [S + 1]: document s is rows [offsets[s], offsets[s + 1]) of the whole stream. The
  /// communicator outlives the layout.
  ContextLayout(std::span<const int64_t> offsets, ContextOrder order, Communicator& group);

  Communicator& group() const { return *group_; }
  int64_t total_rows() const { return offsets_.back(); }
  const RowSet& held() const { return held_[static_cast<size_t>(group_->rank())]; }
  const std::vector<RowSet>& held_by_all() const { return held_; }

  /// The documents' parts among this process's rows: queries are local rows, query_offset the
  /// position in the document, keys the same rows (what is local to a process, without context).
  const std::vector<AttentionSegment>& local_segments() const { return local_; }
  /// The documents as a process that holds all rows sees them.
  const std::vector<AttentionSegment>& whole_segments() const { return whole_; }

  /// For each local query the keys that the mask lets it see, none of the others but those between
  /// them. Equal calls share one plan.
  const GatheredAttention& gathered(const AttentionMask& mask, double scale) const;
  /// Causal attention over all rows, for a process that holds some heads of all of them.
  std::shared_ptr<const AttentionPlan> whole(const AttentionMask& mask, double scale) const;

  /// Rows that all processes together receive for gathered(mask).
  int64_t gathered_rows(const AttentionMask& mask) const;

  /// Each local row preceded by up to `rows` rows of its own document (convolutions).
  std::shared_ptr<const RowExchange> halo(int64_t rows) const;

 private:
  /// The rows that causal attention of the `held` queries reads.
  RowSet needed(const RowSet& held, const AttentionMask& mask) const;
  std::shared_ptr<const RowExchange> exchange(const AttentionMask& mask) const;
  template <typename F>
  void for_each_part(const RowSet& held, F&& function) const;

  std::vector<int64_t> offsets_;
  Communicator* group_;
  std::vector<RowSet> held_;
  std::vector<AttentionSegment> local_, whole_;
  mutable std::vector<std::unique_ptr<GatheredAttention>> gathered_;
  mutable std::vector<std::shared_ptr<const AttentionPlan>> wholes_;
};

}  // namespace lh
