// What a model reads in one go.
#pragma once

#include <cstdint>
#include <vector>

namespace lh {

/// One micro-batch of N tokens in S segments, each a run of one document.
struct Batch {
  int64_t step = 0;
  int64_t first_row = 0;                 // of this batch, counted over all tokens of a training step
  std::vector<int32_t> tokens;           // [N] inputs
  std::vector<int32_t> targets;          // [N] next token of the same document; -1: none
  std::vector<int32_t> positions;        // [N] from 0 in each segment
  std::vector<int64_t> segment_offsets;  // [S + 1] from 0 to N
  std::vector<int64_t> row_numbers;      // [N] the token's number in its step, -1 for filling; empty
                                         // unless asked for (train/gate_schedule.h)
  int64_t valid_targets = 0;             // targets that are not -1
  double target_bytes = 0;  // text bytes of the targets: exact over whole documents in evaluation,
                            // in training an estimate from the source's mean bytes per token
};

}  // namespace lh
