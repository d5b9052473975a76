// Times of operations on one device: several ways of one thing in turn, so that whatever changes in
// the machine meanwhile changes all of them.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "tensor/tensor.h"

namespace lh::bench {

/// Seconds of one call over `count` calls.
struct Times {
  double median = 0;
  double low = 0, high = 0;  // first and last tenth
  int64_t count = 0;
};
Times summary(std::vector<double> seconds);

/// At least `least` rounds, then more until `seconds` have passed or there are `most`.
struct Effort {
  int64_t warmup = 3, least = 5, most = 50;
  double seconds = 0.5;
};

/// One call of each way per round, in the order given. On CUDA by events on the stream, after the
/// L2 cache was overwritten: inputs come from memory, and while it is written the host puts the
/// call behind it, so that no launch is waited for. On the CPU by the clock, caches as they are.
std::vector<Times> measure(Device device, std::span<const std::function<void()>> ways,
                           const Effort& effort);

/// Uniform in [-1, 1): zeros would hide unwritten outputs and draw less power than real data.
/// Large tensors repeat a block of a few million values.
Tensor random_tensor(const Shape& shape, DType dtype, Device device, uint64_t seed = 1);
/// Uniform in [0, below), i32.
Tensor random_ids(int64_t count, int64_t below, Device device, uint64_t seed = 1);

}  // namespace lh::bench
