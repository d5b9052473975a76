// A batch as the tensors a model reads.
#pragma once

#include "data/batcher.h"
#include "mixers/sequence_layout.h"
#include "tensor/tensor.h"

namespace lh {

struct BatchTensors {
  Tensor tokens;   // [N] i32
  Tensor targets;  // [N] i32, -1 where there is none
  SequenceLayout layout;

  static BatchTensors from(const Batch& batch, Device device = kCpuDevice) {
    const MemoryScope scope(MemoryOwner::kData);
    const auto rows = static_cast<int64_t>(batch.tokens.size());
    return {Tensor::from(batch.tokens, {rows}).to(device),
            Tensor::from(batch.targets, {rows}).to(device),
            numbered(SequenceLayout::packed(batch.segment_offsets, device), batch, device)};
  }

  /// With the batch's row numbers, if it has any.
  static SequenceLayout numbered(SequenceLayout layout, const Batch& batch, Device device) {
    const auto rows = static_cast<int64_t>(batch.row_numbers.size());
    if (rows > 0) layout.set_row_numbers(Tensor::from(batch.row_numbers, {rows}).to(device));
    return layout;
  }

  /// With a layout that other batches of as many tokens can take over.
  static BatchTensors reusable(const Batch& batch, Device device) {
    BatchTensors result = from(batch, device);
    result.layout = SequenceLayout::reusable(batch.segment_offsets, device);
    return result;
  }
};

}  // namespace lh
