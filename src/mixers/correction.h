// How much of an output is a correction of softmax attention, which mixers that have one report.
#pragma once

#include "mixers/mixer_report.h"
#include "tensor/tensor.h"

namespace lh {

/// The sum of the squares of a contiguous tensor on any device.
double squares_of(const Tensor& t);

/// Adds to `correction_ratio` of the mixer, |out - plain| / |plain| over all rows and heads. `plain` is what softmax
/// attention gives.
void report_correction(MixerReport& report, const std::string& mixer, const Tensor& out,
                       const Tensor& plain);

/// The number that report_correction() adds to; a mixer that will report opens it.
ReportedMean& correction_ratio(MixerReport& report, const std::string& mixer);

}  // namespace lh
