// The endless stream of training sequences of one source: its pieces in a new order every epoch,
// laid end to end and cut every seq_tokens. Sequence k is a pure function of (seed, source, k), so
// any process can make any part of any step, and a resumed run needs no state.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "data/piece_table.h"

namespace lh {

/// Const methods are safe to call from several threads at once.
class Sampler {
 public:
  struct Options {
    int64_t seq_tokens = 0;
    uint64_t seed = 0;
    int64_t source = 0;  // its place in the mixture: equal shards are shuffled differently
    bool shuffle = true;
  };

  /// `pieces` outlives the sampler.
  Sampler(const PieceTable& pieces, const Options& options);
  ~Sampler();

  /// The slices of sequence k >= 0: seq_tokens tokens in all, each slice of one document. A piece
  /// that a sequence's end cuts goes on in sequence k + 1, which may lie in the next epoch.
  std::vector<Slice> sequence(int64_t k) const;

 private:
  struct Epoch;
  std::shared_ptr<const Epoch> epoch(int64_t number) const;

  const PieceTable& pieces_;
  Options options_;
  mutable std::mutex mutex_;
  mutable std::array<std::shared_ptr<const Epoch>, 2> epochs_;  // a sequence may span two
};

}  // namespace lh
