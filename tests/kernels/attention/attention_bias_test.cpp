// The portable passes with a bias per key: the dense formula in fp64, and closed keys that are left out.
#include "kernels/attention/bias_cases.h"

using namespace lh;
using namespace lh::test;
using xpu::bf16;

namespace {

constexpr double kAbsolute = 4e-6;  // as attention_test.cpp

}  // namespace

TEST_CASE("closed runs are counted from every row") {
  for (const int rows : {1, 127, 128, 129, 255, 256, 257, 700}) {
    for (const int heads : {1, 3}) {
      CAPTURE(rows);
      CAPTURE(heads);
      const auto is_closed = [&](int j, int h) {
        return h == 1 || j % (h == 0 ? 150 : 7) != rows % 7;
      };
      std::vector<float> values(std::size_t(rows * heads));
      for (int i = 0; i < rows * heads; ++i) {
        values[std::size_t(i)] = is_closed(i / heads, i % heads) ? -HUGE_VALF : -100.0f;
      }
      for_each_mode([&] {
        const Buffer<float> bias(values);
        const Buffer<std::uint8_t> runs(
            kernels::attention_closed_runs_bytes(rows, heads));
        kernels::attention_closed_runs({bias.get(), runs.get(), rows, heads}, nullptr);
        const std::vector<std::uint8_t> got = runs.host();
        int wrong = 0;
        for (int h = 0; h < heads; ++h) {
          for (int j = 0; j < rows; ++j) {
            int run = 0;
            while (run < kernels::kAttentionClosedRun &&
                   (j + run >= rows || is_closed(j + run, h))) {
              ++run;
            }
            wrong += got[std::size_t(h * rows + j)] != run;
          }
        }
        CHECK(wrong == 0);
      });
    }
  }
}

TEST_CASE("attention with a bias per key equals the dense formula, bf16 heads of 64") {
  check_bias_cases<bf16>(64, true, kAbsolute, [](auto& run) { run.forward(); },
                         [](auto& run) { run.backward(); });
}

TEST_CASE("attention with a bias per key equals the dense formula, bf16 heads of 128") {
  check_bias_cases<bf16>(128, false, kAbsolute, [](auto& run) { run.forward(); },
                         [](auto& run) { run.backward(); });
}

TEST_CASE("attention with a bias per key equals the dense formula, fp32") {
  check_bias_cases<float>(32, false, kAbsolute, [](auto& run) { run.forward(); },
                          [](auto& run) { run.backward(); });
}

TEST_CASE("attention does not read closed keys beyond the window of the bias") {
  check_closed_keys_are_not_read<bf16>(64, kAbsolute, [](auto& run) { run.forward(); },
                                       [](auto& run) { run.backward(); });
  check_closed_keys_are_not_read<float>(32, kAbsolute, [](auto& run) { run.forward(); },
                                        [](auto& run) { run.backward(); });
}

TEST_CASE("attention refuses closed runs that it cannot read") {
  kernels::AttentionBwdParams<bf16> p;
  p.heads = p.kv_heads = 1;
  p.head_dim = p.value_dim = 64;
  const std::uint8_t run = 0;
  const float bias = 0;
  p.closed_runs = &run;
  CHECK_THROWS_AS(kernels::attention_bwd(p, nullptr), xpu::Error);  // of which bias?
  p.bias = &bias;
  CHECK_THROWS_AS(kernels::attention_bwd(p, nullptr), xpu::Error);  // of how many keys?
  p.key_rows = 1;
  CHECK_NOTHROW(kernels::attention_bwd(p, nullptr));
}
