// Affine recurrence over segments, S_{j+1} = A_j S_j + B_j, and the gradient of its transitions.
// Tiling: columns of a state are independent, so a block owns 32 columns of one head and walks the
//   segments; a warp makes one row at a time for its 32 lanes' columns. The state lives in shared memory
//   twice, before and after a step; transitions are read as broadcasts.
//   The gradient has a warp per entry of a transition, whose lanes share the sum over columns.
// Numerics: fp32 sums in a fixed order. Determinism: bitwise.
// Roofline, an unmeasured estimate: memory. 16 segments of 32 heads with states of 128 x 128 and
//   matrices of 128 x 128: 100 MB, 0.02 ms at 4.8 TB/s; one head's chain of segments has only four
//   blocks, so latency of the chain, about 16 x 2 us, is what remains.
#include "kernels/recurrent/affine_fold.h"

#include "kernels/xpu/xpu.h"

namespace lh::kernels {

namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kColumns = 32;

/// Numbers of one transition.
XPU_HD int entries_of(const AffineParams& p) {
  return p.transition == Transition::kScalar     ? 1
         : p.transition == Transition::kDiagonal ? p.k
                                                 : p.k * p.k;
}

__global__ void __launch_bounds__(kThreads) affine_fold_kernel(const AffineParams p) {
  XPU_DYN_SHARED(float, states);  // [2][k][kColumns]
  const int head = blockIdx.x % p.heads, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int column = blockIdx.x / p.heads * kColumns + lane;
  const bool inside = column < p.v;
  const std::int64_t state = std::int64_t{p.k} * p.v;
  const int entries = entries_of(p);
  for (int i = 0; i < p.segments; ++i) {
    const int j = p.backwards ? p.segments - 1 - i : i;
    float* to = states + (i % 2) * p.k * kColumns;
    const float* from = states + (i + 1) % 2 * p.k * kColumns;
    const std::int64_t before = std::int64_t{p.backwards ? j + 1 : j - 1} * p.heads + head;
    float* out = p.out + (std::int64_t{j} * p.heads + head) * state;
    for (int row = warp; row < p.k; row += kWarps) {
      float sum = 0.0f;
      if (i > 0) {
        const float* a = p.a + before * entries;
        if (p.transition == Transition::kMatrix) {
          for (int l = 0; l < p.k; ++l) {
            sum += (p.backwards ? a[l * p.k + row] : a[row * p.k + l]) * from[l * kColumns + lane];
          }
        } else {
          sum = a[p.transition == Transition::kScalar ? 0 : row] * from[row * kColumns + lane];
        }
        if (inside) sum += p.b[before * state + std::int64_t{row} * p.v + column];
      }
      to[row * kColumns + lane] = sum;
      if (inside) out[std::int64_t{row} * p.v + column] = sum;
    }
    xpu::sync_block();  // all rows of this state before the next reads them
  }
}

__global__ void __launch_bounds__(kThreads)
    affine_gradient_kernel(const float* g, const float* s, AffineParams p, std::int64_t total,
                           int entries, float* da) {
  const std::int64_t entry =
      static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (entry >= total) return;
  const std::int64_t item = entry / entries;
  const int within = static_cast<int>(entry % entries);
  const float* x = g + item * p.k * p.v;
  const float* y = s + item * p.k * p.v;
  int count = p.v;
  if (p.transition == Transition::kScalar) {
    count = p.k * p.v;
  } else if (p.transition == Transition::kDiagonal) {
    x += std::int64_t{within} * p.v;
    y += std::int64_t{within} * p.v;
  } else {
    x += std::int64_t{within / p.k} * p.v;
    y += std::int64_t{within % p.k} * p.v;
  }
  float sum = 0.0f;
  for (int i = threadIdx.x % 32; i < count; i += 32) sum += x[i] * y[i];
  sum = xpu::warp_sum(sum);
  if (threadIdx.x % 32 == 0) da[entry] = sum;
}

}  // namespace

void affine_fold(const AffineParams& p, xpu::Stream stream) {
  if (p.segments == 0 || p.heads == 0 || p.k == 0 || p.v == 0) return;
  const std::size_t shared = std::size_t{2} * p.k * kColumns * sizeof(float);
  constexpr int kMostRows = 768;  // what 192 KiB of shared memory hold
  if (p.k > kMostRows) {
    throw xpu::Error("affine_fold: states of at most " + std::to_string(kMostRows) + " rows, got " +
                     std::to_string(p.k));
  }
  const auto blocks = static_cast<unsigned>(p.heads) *
                      static_cast<unsigned>(xpu::ceil_div(p.v, kColumns));
  xpu::launch<affine_fold_kernel>({blocks, kThreads, shared, stream}, p);
}

void affine_transition_gradient(const float* g, const float* s, const AffineParams& sizes, float* da,
                                xpu::Stream stream) {
  const int entries = entries_of(sizes);
  const std::int64_t total = std::int64_t{sizes.segments} * sizes.heads * entries;
  if (total == 0) return;
  xpu::launch<affine_gradient_kernel>(
      {static_cast<unsigned>(xpu::ceil_div(total, std::int64_t{kWarps})), kThreads, 0, stream}, g, s,
      sizes, total, entries, da);
}

}  // namespace lh::kernels
