#include "bench/groups.h"

namespace lh::bench {

Effort Setup::effort() const {
  if (scale == Scale::kToy) return {.warmup = 1, .least = 3, .most = 3, .seconds = 0};
  if (scale == Scale::kSmall) return {.warmup = 1, .least = 3, .most = 30, .seconds = 0.4};
  return {.warmup = 5, .least = 10, .most = 100, .seconds = 1};
}

std::span<const Group> groups() {
  static constexpr Group kGroups[] = {
      {"memory", "kernels limited by memory, against a copy", bench_memory},
      {"gemm", "products of training steps, against a large square product", bench_gemm},
      {"attention", "softmax attention forward and backward, against cuDNN or a product",
       bench_attention},
      {"decode",
       "attention of one new token per sequence against a copy, and under SP-KV against all keys",
       bench_decode},
      {"step", "whole training steps of recipes, against a large square product", bench_step}};
  return kGroups;
}

}  // namespace lh::bench
