// Which source each sequence of a run comes from: a fixed periodic assignment that gives every
// source its share at any moment, so that no step is made of one source alone.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace lh {

/// Tijdeman's assignment (1980, "The chairman assignment problem"): after k sequences, each source
/// has had k * share within less than 1. Weights are honoured to one millionth.
class Mixture {
 public:
  /// ConfigError when a weight is not positive and finite, or too small beside the largest.
  explicit Mixture(std::span<const double> weights);

  struct Draw {
    int64_t source;
    int64_t index;  // how many sequences of this source came before
  };

  /// Sequence `k` >= 0 of the run. O(1).
  Draw operator()(int64_t k) const;

  /// Sequences of `source` among the first `k`. O(log period).
  int64_t count(int64_t source, int64_t k) const;

  int64_t sources() const { return static_cast<int64_t>(shares_.size()); }
  /// The source's share in the rounded weights.
  double share(int64_t source) const;

 private:
  std::vector<int64_t> shares_;             // sequences of each source per period
  int64_t period_ = 0;                      // their sum
  std::vector<Draw> table_;                 // one period
  std::vector<std::vector<int64_t>> when_;  // places of each source within the period
};

}  // namespace lh
