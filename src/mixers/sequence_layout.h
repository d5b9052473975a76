// How the rows of a step are split into documents. Made once per step, shared by all layers.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <vector>

#include "backend/attention.h"
#include "parallel/context_layout.h"
#include "tensor/tensor.h"

namespace lh {

class SequenceLayout {
 public:
  /// Packed documents: segment s is rows [offsets[s], offsets[s + 1]), positions from 0 in each.
  static SequenceLayout packed(std::span<const int64_t> offsets, Device device = kCpuDevice);
  /// One run of `count` rows at positions [first, first + count) of one document (decoding).
  static SequenceLayout run(int64_t first, int64_t count, Device device = kCpuDevice);

  /// This process's rows of documents that a context-parallel group shares.
  static SequenceLayout shared(std::shared_ptr<const ContextLayout> context,
                               Device device = kCpuDevice);

  const Tensor& positions() const { return positions_; }  // [rows] i32
  int64_t rows() const { return positions_.size(0); }
  int64_t longest() const { return longest_; }  // largest position + 1, in any process
  std::span<const AttentionSegment> segments() const { return segments_; }
  /// Where the other rows of these documents are; nullptr when all are here.
  const ContextLayout* context() const { return context_.get(); }

  /// The plan of causal attention among the rows of each segment; equal calls share one plan.
  std::shared_ptr<const AttentionPlan> plan(const AttentionMask& mask, double scale) const;

 private:
  Tensor positions_;
  int64_t longest_ = 0;
  std::vector<AttentionSegment> segments_;
  std::shared_ptr<const ContextLayout> context_;
  mutable std::vector<std::shared_ptr<const AttentionPlan>> plans_;
};

}  // namespace lh
