// Bugs in the use of global memory, by one block or between blocks; as in planted_bugs.cu.
#include "kernels/support/harness.h"
#include "kernels/xpu/planted_bugs.h"
#include "kernels/xpu/xpu.h"

namespace lh::test {

namespace {

using xpu::bf16;
using xpu::TensorMap;

constexpr int kThreads = 128;

// --- one block ---------------------------------------------------------------------------------

template <bool kBug>
__global__ void write_past_end_kernel(float* out, int n) {
  for (int i = threadIdx.x; kBug ? i <= n : i < n; i += kThreads) out[i] = 1.0f;
}

template <bool kBug>
__global__ void read_past_end_kernel(const float* in, float* out, int n) {
  float last = 0.0f;
  for (int i = threadIdx.x; kBug ? i <= n : i < n; i += kThreads) last = fmaxf(last, in[i]);
  // The extra element is not used: only its read is wrong.
  out[threadIdx.x] = static_cast<int>(threadIdx.x) < n ? in[threadIdx.x] : last * 0.0f;
}

template <bool kBug>
__global__ void misaligned_vector_kernel(const float* in, float* out, int columns) {
  const int row = threadIdx.x;  // rows of 6 floats are not multiples of 16 bytes
  if (kBug) {
    const auto x = xpu::load_vec<4>(in + row * columns);
    out[row] = x[0] + x[1];
  } else {
    const auto x = xpu::load_vec<2>(in + row * columns);
    out[row] = x[0] + x[1];
  }
}

template <bool kBug>
__global__ void global_barrier_kernel(const float* in, float* scratch, float* out) {
  scratch[threadIdx.x] = in[threadIdx.x];
  if (!kBug) xpu::sync_block();
  out[threadIdx.x] = scratch[threadIdx.x == 0 ? 0 : threadIdx.x - 1];
}

// --- blocks ------------------------------------------------------------------------------------

constexpr int kBlocks = 5, kMany = kBlocks * kThreads;

/// The bug: tiles end one element late. The value is the right one, whoever writes it last.
template <bool kBug>
__global__ void overlapping_tiles_kernel(const float* in, float* out) {
  const int begin = blockIdx.x * kThreads;
  const int end = begin + kThreads + (kBug ? 1 : 0);
  for (int i = begin + threadIdx.x; i < end && i < kMany; i += kThreads) out[i] = 2.0f * in[i];
}

/// out[i] = x[i] + x[i + 1]; the bug: in place, while another block still needs x[i].
template <bool kBug>
__global__ void in_place_kernel(float* x, float* out) {
  const int i = blockIdx.x * kThreads + threadIdx.x;
  const float sum = x[i] + (i + 1 < kMany ? x[i + 1] : 0.0f);
  xpu::sync_block();
  (kBug ? x : out)[i] = sum;
}

enum class ArrivalBug { kNone, kNoFence, kNoBarrier, kFenceTooEarly, kNoSecondFence };

/// True in the block that is the last to come here: it sees what the others wrote before.
template <ArrivalBug kBug>
__device__ bool last_to_arrive(int* counter) {
  XPU_SHARED(int, arrived, [1]);
  if (kBug == ArrivalBug::kFenceTooEarly && threadIdx.x == 0) xpu::fence_device();
  if (kBug != ArrivalBug::kNoBarrier) xpu::sync_block();
  if (threadIdx.x == 0) {
    // After the barrier, one thread's fence covers the writes of all.
    constexpr bool kFence = kBug != ArrivalBug::kNoFence && kBug != ArrivalBug::kFenceTooEarly;
    if (kFence) xpu::fence_device();
    arrived[0] = xpu::atomic_add(counter, 1);
    if (kBug != ArrivalBug::kNoSecondFence) xpu::fence_device();
  }
  xpu::sync_block();
  return arrived[0] == kBlocks - 1;
}

/// out[t] = sum over blocks of a part that each has written.
template <ArrivalBug kBug>
__global__ void arrival_kernel(const float* in, float* parts, float* out, int* counter) {
  const int t = threadIdx.x;
  parts[blockIdx.x * kThreads + t] = in[blockIdx.x * kThreads + t];
  if (!last_to_arrive<kBug>(counter)) return;
  float sum = 0.0f;
  for (int b = 0; b < kBlocks; ++b) sum += parts[b * kThreads + kThreads - 1 - t];
  out[t] = sum;
  if (t == 0) *counter = 0;
}

/// Scales and clears the scale for the next launch; the bug: not in the last block to arrive.
template <bool kBug>
__global__ void cleared_scale_kernel(const float* in, float* scale, float* out, int* counter) {
  const int i = blockIdx.x * kThreads + threadIdx.x;
  out[i] = *scale * in[i];
  bool clears = blockIdx.x == kBlocks - 1;
  if (kBug) xpu::sync_block();
  else clears = last_to_arrive<ArrivalBug::kNone>(counter);
  if (clears && threadIdx.x == 0) *scale = 0.0f;
}

constexpr int kRows = 8, kColumns = 64;

/// The bug: tiles of neighbouring blocks share half of their rows, whose values are the same.
template <bool kBug>
__global__ void overlapping_stores_kernel(const XPU_GRID_CONSTANT TensorMap map) {
  XPU_DYN_SHARED(bf16, tile);
  for (int i = threadIdx.x; i < kRows * kColumns; i += kThreads) {
    tile[i] = xpu::from_float<bf16>(1.0f);
  }
  xpu::fence_proxy_async();
  xpu::sync_block();
  if (threadIdx.x == 0) {
    const int y = static_cast<int>(blockIdx.x) * kRows;
    xpu::tma_store(map, 0, kBug && y > 0 ? y - kRows / 2 : y, tile);
    xpu::tma_store_commit();
    xpu::tma_store_wait<0>();
  }
}

// --- host ----------------------------------------------------------------------------------------

bool write_past_end(bool bug) {
  const int n = 100;
  Buffer<float> out(n);
  if (bug) xpu::launch<write_past_end_kernel<true>>({1, kThreads}, out.get(), n);
  else xpu::launch<write_past_end_kernel<false>>({1, kThreads}, out.get(), n);
  return out.host() == std::vector<float>(n, 1.0f);
}

bool read_past_end(bool bug) {
  const int n = 100;
  const auto in = counting(n);
  Buffer<float> device_in(in), out(kThreads);
  if (bug) xpu::launch<read_past_end_kernel<true>>({1, kThreads}, device_in.get(), out.get(), n);
  else xpu::launch<read_past_end_kernel<false>>({1, kThreads}, device_in.get(), out.get(), n);
  const auto got = out.host();
  return std::equal(in.begin(), in.end(), got.begin());
}

bool misaligned_vector(bool bug) {
  const int columns = 6;
  const auto in = counting(columns * kThreads);
  Buffer<float> device_in(in), out(kThreads);
  if (bug) {
    xpu::launch<misaligned_vector_kernel<true>>({1, kThreads}, device_in.get(), out.get(), columns);
  } else {
    xpu::launch<misaligned_vector_kernel<false>>({1, kThreads}, device_in.get(), out.get(), columns);
  }
  const auto got = out.host();
  for (int t = 0; t < kThreads; ++t) {
    if (got[t] != in[t * columns] + in[t * columns + 1]) return false;
  }
  return true;
}

bool global_barrier(bool bug) {
  const auto in = counting(kThreads);
  Buffer<float> device_in(in), scratch(kThreads), out(kThreads);
  const xpu::LaunchConfig config{1, kThreads};
  if (bug) {
    xpu::launch<global_barrier_kernel<true>>(config, device_in.get(), scratch.get(), out.get());
  } else {
    xpu::launch<global_barrier_kernel<false>>(config, device_in.get(), scratch.get(), out.get());
  }
  const auto got = out.host();
  return got[0] == in[0] && std::equal(got.begin() + 1, got.end(), in.begin());
}

bool overlapping_tiles(bool bug) {
  auto want = counting(kMany);
  Buffer<float> in(want), out(kMany);
  const xpu::LaunchConfig config{kBlocks, kThreads};
  if (bug) xpu::launch<overlapping_tiles_kernel<true>>(config, in.get(), out.get());
  else xpu::launch<overlapping_tiles_kernel<false>>(config, in.get(), out.get());
  for (float& x : want) x *= 2.0f;
  return out.host() == want;
}

bool in_place(bool bug) {
  auto want = counting(kMany);
  Buffer<float> x(want), out(kMany);
  const xpu::LaunchConfig config{kBlocks, kThreads};
  if (bug) xpu::launch<in_place_kernel<true>>(config, x.get(), out.get());
  else xpu::launch<in_place_kernel<false>>(config, x.get(), out.get());
  for (int i = 0; i + 1 < kMany; ++i) want[i] += want[i + 1];
  return (bug ? x : out).host() == want;
}

template <ArrivalBug kBug>
bool run_arrival() {
  const auto in = counting(kMany);
  Buffer<float> device_in(in), parts(kMany), out(kThreads);
  Buffer<int> counter(std::vector<int>(1, 0));
  xpu::launch<arrival_kernel<kBug>>({kBlocks, kThreads}, device_in.get(), parts.get(), out.get(),
                                    counter.get());
  const auto got = out.host();
  for (int t = 0; t < kThreads; ++t) {
    float want = 0.0f;
    for (int b = 0; b < kBlocks; ++b) want += in[b * kThreads + kThreads - 1 - t];
    if (got[t] != want) return false;
  }
  return counter.host()[0] == 0;
}

template <ArrivalBug kBug>
bool arrival(bool bug) {
  return bug ? run_arrival<kBug>() : run_arrival<ArrivalBug::kNone>();
}

bool cleared_scale(bool bug) {
  auto want = counting(kMany);
  Buffer<float> in(want), scale(std::vector<float>(1, 3.0f)), out(kMany);
  Buffer<int> counter(std::vector<int>(1, 0));
  const xpu::LaunchConfig config{kBlocks, kThreads};
  if (bug) {
    xpu::launch<cleared_scale_kernel<true>>(config, in.get(), scale.get(), out.get(),
                                            counter.get());
  } else {
    xpu::launch<cleared_scale_kernel<false>>(config, in.get(), scale.get(), out.get(),
                                             counter.get());
  }
  for (float& x : want) x *= 3.0f;
  return out.host() == want && scale.host()[0] == 0.0f;
}

bool overlapping_stores(bool bug) {
  const int rows = bug ? kRows + kRows / 2 : 2 * kRows;
  Buffer<bf16> out(static_cast<std::size_t>(rows) * kColumns);
  const TensorMap map =
      xpu::make_tensor_map(out.get(), 2, rows, kColumns, kColumns * 2, kRows, kColumns);
  const xpu::LaunchConfig config{2, kThreads, kRows * kColumns * sizeof(bf16)};
  if (bug) xpu::launch<overlapping_stores_kernel<true>>(config, map);
  else xpu::launch<overlapping_stores_kernel<false>>(config, map);
  for (const bf16 x : out.host()) {
    if (xpu::to_float(x) != 1.0f) return false;
  }
  return true;
}

}  // namespace

std::vector<PlantedBug> planted_global_bugs() {
  return {
      {"write one past the end of global memory", write_past_end},
      {"read one past the end of global memory", read_past_end},
      {"vector load at an unaligned address", misaligned_vector},
      {"no barrier between a write to global memory and another thread's read", global_barrier},
      {"two blocks write one element", overlapping_tiles},
      {"a block overwrites what another one reads", in_place},
      {"a block overwrites what all others read", cleared_scale},
      {"no device fence before a block counts itself", arrival<ArrivalBug::kNoFence>},
      {"device fence before the barrier, by one thread", arrival<ArrivalBug::kFenceTooEarly>},
      {"no barrier before a block counts itself", arrival<ArrivalBug::kNoBarrier>},
      {"no device fence after the last block counted itself", arrival<ArrivalBug::kNoSecondFence>},
      {"TMA stores of two blocks overlap", overlapping_stores},
  };
}

}  // namespace lh::test
