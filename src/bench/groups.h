// The groups of `longhand bench`: what each measures and against what.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "bench/report.h"
#include "config/recipe.h"

namespace lh::bench {

/// Sizes of all cases. kFull: training sizes that fill a GPU; kSmall: what a CPU does in about a
/// minute; kToy: for tests, also on the emulated device.
enum class Scale : uint8_t { kToy, kSmall, kFull };

struct Setup {
  Device device;
  DType dtype = DType::kBF16;  // of activations and products
  Scale scale = Scale::kFull;
  std::vector<Recipe> recipes;  // of the training steps

  int64_t pick(int64_t toy, int64_t small, int64_t full) const {
    return scale == Scale::kToy ? toy : scale == Scale::kSmall ? small : full;
  }
  Effort effort() const;
  /// What we promise is of a GPU.
  bool has_targets() const { return device.kind == DeviceKind::kCuda; }
};

void bench_memory(const Setup& setup, Report& report);
void bench_attention(const Setup& setup, Report& report);
void bench_decode(const Setup& setup, Report& report);
void bench_gemm(const Setup& setup, Report& report);
void bench_step(const Setup& setup, Report& report);

struct Group {
  const char* name;
  const char* about;
  void (*run)(const Setup&, Report&);
};
/// In the order in which they run.
std::span<const Group> groups();

}  // namespace lh::bench
