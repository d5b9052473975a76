// What the machine can do, measured beside each case: bytes per second of a copy, operations per
// second of a matrix product.
#pragma once

#include "bench/groups.h"

namespace lh::bench {

struct Yardstick {
  std::function<void()> run;
  double work = 0;  // bytes, read and written, or floating-point operations
  std::string name;
};

/// A copy of a buffer much larger than the caches (as large as the scale allows).
Yardstick copy_yardstick(const Setup& setup);
/// c = a b^T of square matrices of setup.dtype.
Yardstick product_yardstick(const Setup& setup);

/// Measures `run` and the yardstick in turn and reports the row, whose group, name, shape and bytes
/// or flops are given, with the ratio of the two rates.
void add_against(const Yardstick& yardstick, const std::function<void()>& run, const Setup& setup,
                 Row row, Report& report);
void add_against(const Yardstick& yardstick, const std::function<void()>& run, const Setup& setup,
                 Row row, Report& report, const Effort& effort);

/// One of several ways to do the same job, and its row but for times and ratio.
struct Contender {
  std::function<void()> run;
  Row row;
};
/// Measures all contenders and `peer` in turn. Their ratios are those of speed, the peer's time by their own,
/// whatever arithmetic each of them needs for the job; `peer_name` is what ratio_to calls it.
void add_same_job(const std::function<void()>& peer, const std::string& peer_name,
                  std::vector<Contender> contenders, const Setup& setup, Report& report, const Effort& effort);

}  // namespace lh::bench
