// Least-significant-digit radix sort, four bits at a time.
// Tiling: a block of 256 threads takes 2048 positions, each thread eight neighbours, so that counts
//   per thread, in the order of threads, give stable ranks. Shared: 16 x 257 counts.
// Determinism: stable and integer, so exact.
// Roofline: launches, about 3 per digit; 65536 tokens of a 50257 vocabulary sort in about 0.05 ms.
//   An estimate, unmeasured.
#include "kernels/embedding/sort.h"

#include "kernels/xpu/xpu.h"

namespace lh::kernels {

namespace {

constexpr int kThreads = 256;
constexpr int kItems = 8;
constexpr int kTile = kThreads * kItems;
constexpr int kBits = 4, kDigits = 1 << kBits;
constexpr int kPad = kThreads + 1;  // digits of one thread in different banks

struct Pass {
  const std::int32_t* ids;
  const std::int32_t* from;  // order so far; null: 0, 1, 2, ...
  std::int32_t* to;
  std::int32_t* counts;  // [digit][block], before the scan and after it
  int n, vocab, shift;
};

__device__ inline int key_of(const std::int32_t* ids, int vocab, int position) {
  const int id = ids[position];
  return id < 0 || id >= vocab ? vocab : id;
}

__device__ inline int digit_of(const Pass& p, int position) {
  return key_of(p.ids, p.vocab, position) >> p.shift & (kDigits - 1);
}

/// counts[digit][thread] of this block's tile.
__device__ inline void count_digits(const Pass& p, int (&counts)[kDigits][kPad]) {
  for (int d = 0; d < kDigits; ++d) counts[d][threadIdx.x] = 0;
  const int first = blockIdx.x * kTile + threadIdx.x * kItems;
  for (int i = first; i < first + kItems && i < p.n; ++i) {
    ++counts[digit_of(p, p.from ? p.from[i] : i)][threadIdx.x];
  }
  xpu::sync_block();
}

/// Exclusive sums over the threads for each digit, two digits per warp; returns through `totals`.
__device__ inline void scan_threads(int (&counts)[kDigits][kPad], int (&totals)[kDigits]) {
  constexpr int kPerLane = kThreads / 32;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int d = warp; d < kDigits; d += kThreads / 32) {
    int mine = 0;
    for (int j = 0; j < kPerLane; ++j) mine += counts[d][lane * kPerLane + j];
    int inclusive = mine;
    for (int offset = 1; offset < 32; offset *= 2) {
      const int left = xpu::shuffle_up(inclusive, offset);
      if (lane >= offset) inclusive += left;
    }
    int running = inclusive - mine;
    for (int j = 0; j < kPerLane; ++j) {
      const int count = counts[d][lane * kPerLane + j];
      counts[d][lane * kPerLane + j] = running;
      running += count;
    }
    if (lane == 31) totals[d] = inclusive;
  }
  xpu::sync_block();
}

__global__ void __launch_bounds__(kThreads) sort_count_kernel(const Pass p) {
  XPU_SHARED(int, counts, [kDigits][kPad]);
  XPU_SHARED(int, totals, [kDigits]);
  count_digits(p, counts);
  scan_threads(counts, totals);
  if (threadIdx.x < kDigits) p.counts[threadIdx.x * gridDim.x + blockIdx.x] = totals[threadIdx.x];
}

/// Exclusive sums over all counts, by one block.
__global__ void __launch_bounds__(kThreads) sort_scan_kernel(std::int32_t* counts, int n) {
  XPU_SHARED(int, sums, [kThreads / 32]);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int before = 0;
  for (int first = 0; first < n; first += kThreads) {
    const int i = first + threadIdx.x;
    const int mine = i < n ? counts[i] : 0;
    int inclusive = mine;
    for (int offset = 1; offset < 32; offset *= 2) {
      const int left = xpu::shuffle_up(inclusive, offset);
      if (lane >= offset) inclusive += left;
    }
    if (lane == 31) sums[warp] = inclusive;
    xpu::sync_block();
    int total = 0;
    for (int w = 0; w < kThreads / 32; ++w) {
      if (w == warp) inclusive += total;
      total += sums[w];
    }
    if (i < n) counts[i] = before + inclusive - mine;
    before += total;
    xpu::sync_block();
  }
}

__global__ void __launch_bounds__(kThreads) sort_scatter_kernel(const Pass p) {
  XPU_SHARED(int, counts, [kDigits][kPad]);
  XPU_SHARED(int, totals, [kDigits]);
  count_digits(p, counts);
  scan_threads(counts, totals);
  const int first = blockIdx.x * kTile + threadIdx.x * kItems;
  for (int i = first; i < first + kItems && i < p.n; ++i) {
    const int position = p.from ? p.from[i] : i;
    const int digit = digit_of(p, position);
    const int rank = counts[digit][threadIdx.x]++;
    p.to[p.counts[digit * gridDim.x + blockIdx.x] + rank] = position;
  }
}

__global__ void __launch_bounds__(kThreads) sort_keys_kernel(const SortParams p) {
  const int i = blockIdx.x * kThreads + threadIdx.x;
  if (i < p.n) p.keys[i] = key_of(p.ids, p.vocab, p.order[i]);
}

int tiles_of(int n) { return xpu::ceil_div(n, kTile); }

}  // namespace

void sort_by_id(const SortParams& p, xpu::Stream stream) {
  if (p.n == 0) return;
  if (p.vocab < 1) throw xpu::Error("sort_by_id: vocab is " + std::to_string(p.vocab));
  int passes = 1;
  while (p.vocab >> (kBits * passes) != 0) ++passes;
  std::int32_t* counts = p.workspace;
  std::int32_t* other = p.workspace + kDigits * tiles_of(p.n);
  const auto tiles = static_cast<unsigned>(tiles_of(p.n));
  const xpu::LaunchConfig config{tiles, kThreads, 0, stream};
  const std::int32_t* from = nullptr;
  // The last pass must end in p.order.
  std::int32_t* to = passes % 2 == 1 ? p.order : other;
  for (int pass = 0; pass < passes; ++pass) {
    const Pass step{p.ids, from, to, counts, p.n, p.vocab, pass * kBits};
    xpu::launch<sort_count_kernel>(config, step);
    xpu::launch<sort_scan_kernel>({1, kThreads, 0, stream}, counts,
                                  kDigits * static_cast<int>(tiles));
    xpu::launch<sort_scatter_kernel>(config, step);
    from = to;
    to = to == p.order ? other : p.order;
  }
  xpu::launch<sort_keys_kernel>(
      {static_cast<unsigned>(xpu::ceil_div(p.n, kThreads)), kThreads, 0, stream}, p);
}

std::size_t sort_workspace(int n) {
  return static_cast<std::size_t>(kDigits) * static_cast<std::size_t>(tiles_of(n)) +
         static_cast<std::size_t>(n);
}

}  // namespace lh::kernels
