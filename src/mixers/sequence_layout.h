// How the rows of a step are split into documents. Made once per step, shared by all layers.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "backend/attention.h"
#include "mixers/gate_phase.h"
#include "mixers/mixer_report.h"
#include "parallel/context_layout.h"
#include "tensor/tensor.h"

namespace lh {

/// Copies share one layout; gates, report and row numbers are each copy's own.
class SequenceLayout {
 public:
  /// Packed documents: segment s is rows [offsets[s], offsets[s + 1]), positions from 0 in each.
  static SequenceLayout packed(std::span<const int64_t> offsets, Device device = kCpuDevice);
  /// packed() for steps that are recorded and launched again: what kernels were given stays right
  /// when reassign() cuts the same rows otherwise.
  static SequenceLayout reusable(std::span<const int64_t> offsets, Device device);
  /// One run of `count` rows at positions [first, first + count) of one document (decoding).
  static SequenceLayout run(int64_t first, int64_t count, Device device = kCpuDevice);

  /// This process's rows of documents that a context-parallel group shares.
  static SequenceLayout shared(std::shared_ptr<const ContextLayout> context,
                               Device device = kCpuDevice);

  /// Other documents over as many rows, in this layout and all its copies, in stream order. False when
  /// there are so many of them that arrays moved: recorded steps must be recorded again. Only for
  /// reusable layouts; throws when offsets end at another row.
  bool reassign(std::span<const int64_t> offsets);

  const Tensor& positions() const { return contents_->positions; }  // [rows] i32
  int64_t rows() const { return positions().size(0); }
  int64_t longest() const { return contents_->longest; }  // largest position + 1, in any process
  std::span<const AttentionSegment> segments() const { return contents_->segments; }
  /// Where the other rows of these documents are; nullptr when all are here.
  const ContextLayout* context() const { return contents_->context.get(); }

  /// The plan of causal attention among the rows of each segment; equal calls share one plan.
  std::shared_ptr<const AttentionPlan> plan(const AttentionMask& mask, double scale) const;

  /// How the gates of self-pruning mixers act in this step.
  const GatePhase& gates() const { return gates_; }
  void set_gates(const GatePhase& gates) { gates_ = gates; }

  /// Where forward() of a mixer adds what it reports; nullptr: nobody asks. Not owned.
  MixerReport* report() const { return report_; }
  void set_report(MixerReport* report) { report_ = report; }

  /// [rows] i64: the number of each row in its step, the same however the step is split, -1 for filling
  /// that belongs to no document; undefined where nobody asked for it.
  const Tensor& row_numbers() const { return row_numbers_; }
  void set_row_numbers(Tensor numbers) { row_numbers_ = std::move(numbers); }

 private:
  struct Contents {
    Tensor positions;
    int64_t longest = 0;
    std::vector<AttentionSegment> segments;
    int64_t segment_capacity = 0;  // AttentionPlan
    std::shared_ptr<const ContextLayout> context;
    std::vector<std::shared_ptr<AttentionPlan>> plans;
  };
  std::shared_ptr<Contents> contents_ = std::make_shared<Contents>();
  GatePhase gates_;
  MixerReport* report_ = nullptr;
  Tensor row_numbers_;
};

}  // namespace lh
