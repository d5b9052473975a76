// The Hopper passes with a bias per key: the dense formula in fp64, and closed keys that are left out.
#include "kernels/attention/bias_cases.h"

using namespace lh;
using namespace lh::test;
using xpu::bf16;

namespace {

constexpr double kAbsolute = 4e-6;  // as attention_test.cpp

void check_head_dim(int head_dim) {
#ifdef __CUDACC__
  if (!has_sm90()) return;
#endif
  check_bias_cases<bf16>(head_dim, head_dim == 64, kAbsolute, [](auto& run) { run.forward_sm90(); },
                         [](auto& run) { run.backward_sm90(); });
}

}  // namespace

TEST_CASE("attention for Hopper with a bias per key equals the dense formula, heads of 64") {
  check_head_dim(64);
}

TEST_CASE("attention for Hopper with a bias per key equals the dense formula, heads of 96") {
  check_head_dim(96);
}

TEST_CASE("attention for Hopper with a bias per key equals the dense formula, heads of 128") {
  check_head_dim(128);
}

TEST_CASE("attention for Hopper does not read closed keys beyond the window of the bias") {
#ifdef __CUDACC__
  if (!has_sm90()) return;
#endif
  for (const int head_dim : {64, 128}) {
    check_closed_keys_are_not_read<bf16>(head_dim, kAbsolute, [](auto& run) { run.forward_sm90(); },
                                         [](auto& run) { run.backward_sm90(); });
  }
}
