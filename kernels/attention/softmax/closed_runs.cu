// Runs of closed keys, from a bias per key.
//   runs_hj = the number of rows j, j + 1, ... whose bias of kv head h is -inf, up to 128
// A run per row and not a bit per tile: tiles begin where segments do, and the kernels' tiles differ.
// Plan: a block per (256 rows, kv head) reads 128 rows more than it writes. Lengths double: a run of
//   n that is as long as n can be goes on with that of the row n further, 7 steps. The kv heads of
//   the same rows are neighbouring blocks, which share the sectors of the bias in L2.
// Numerics: integers. Determinism: bitwise.
// Roofline: memory, 4 bytes read (6 with the rows read twice) and 1 written per key and kv head:
//   131072 keys x 8 heads take 1.5 us at 4.8 TB/s, less than a launch. An unmeasured estimate.
#include "kernels/attention/closed_runs.h"

#include "kernels/xpu/xpu.h"

namespace lh::kernels {

namespace softmax {

namespace {

constexpr int kRows = 256, kThreads = kRows + kAttentionClosedRun;

__global__ void __launch_bounds__(kThreads)
    attention_closed_runs_kernel(const AttentionClosedRunsParams p) {
  XPU_SHARED(int, runs, [kThreads]);
  const int thread = static_cast<int>(threadIdx.x), head = blockIdx.x % p.kv_heads;
  const std::int64_t row = std::int64_t{blockIdx.x / p.kv_heads} * kRows + thread;
  const bool closed =
      row >= p.key_rows || p.bias[row * p.kv_heads + head] == -__builtin_huge_valf();
  int run = closed ? 1 : 0;
  runs[thread] = run;
  for (int length = 1; length < kAttentionClosedRun; length *= 2) {
    xpu::sync_block();
    const int further = thread + length;
    const int more = run == length && further < kThreads ? runs[further] : 0;
    xpu::sync_block();
    run += more;
    runs[thread] = run;
  }
  if (thread < kRows && row < p.key_rows) {
    p.runs[std::int64_t{head} * p.key_rows + row] = static_cast<std::uint8_t>(run);
  }
}

}  // namespace

}  // namespace softmax

void attention_closed_runs(const AttentionClosedRunsParams& p, xpu::Stream stream) {
  if (p.key_rows == 0) return;
  const auto blocks = static_cast<unsigned>(xpu::ceil_div(p.key_rows, softmax::kRows)) *
                      static_cast<unsigned>(p.kv_heads);
  xpu::launch<softmax::attention_closed_runs_kernel>({blocks, softmax::kThreads, 0, stream}, p);
}

}  // namespace lh::kernels
