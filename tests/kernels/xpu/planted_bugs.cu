// Every kernel here is correct with kBug false and has exactly one bug with kBug true.
#include "kernels/xpu/planted_bugs.h"

#include <numeric>

#include "kernels/support/harness.h"
#include "kernels/xpu/xpu.h"

namespace lh::test {

namespace {

using xpu::bf16;
using xpu::Mbarrier;
using xpu::TensorMap;

constexpr int kThreads = 128;

// --- barriers and warps ------------------------------------------------------------------------

template <bool kBug>
__global__ void barrier_before_read_kernel(const float* in, float* out) {
  XPU_SHARED(float, s, [kThreads]);
  s[threadIdx.x] = in[threadIdx.x];
  if (!kBug) xpu::sync_block();
  out[threadIdx.x] = s[(threadIdx.x + 1) % kThreads];
}

template <bool kBug>
__global__ void barrier_before_reuse_kernel(const float* in, float* out) {
  XPU_SHARED(float, s, [kThreads]);
  float sum = 0.0f;
  for (int i = 0; i < 4; ++i) {
    s[threadIdx.x] = in[threadIdx.x] * static_cast<float>(i);
    xpu::sync_block();
    sum += s[(threadIdx.x + 1) % kThreads];
    if (!kBug) xpu::sync_block();
  }
  out[threadIdx.x] = sum;
}

template <bool kBug>
__global__ void warp_sync_kernel(const float* in, float* out) {
  XPU_SHARED(float, s, [kThreads]);
  s[threadIdx.x] = in[threadIdx.x];
  if (!kBug) xpu::sync_warp();
  out[threadIdx.x] = s[threadIdx.x ^ 1];
}

template <bool kBug>
__global__ void divergent_shuffle_kernel(const float* in, float* out) {
  float x = in[threadIdx.x];
  if (!kBug || threadIdx.x % 32 < 16) x = xpu::shuffle_xor(x, 1);
  out[threadIdx.x] = x;
}

template <bool kBug>
__global__ void named_barrier_kernel(const float* in, float* out) {
  XPU_SHARED(float, s, [kThreads]);
  s[threadIdx.x] = in[threadIdx.x];
  if (threadIdx.x < 64) xpu::named_sync(1, kBug ? 96 : 64);
  xpu::sync_block();
  out[threadIdx.x] = s[(threadIdx.x + 1) % kThreads];
}

template <bool kBug>
__global__ void shuffle_mask_kernel(const float* in, float* out) {
  out[threadIdx.x] = xpu::shuffle_xor(in[threadIdx.x], 1, kBug ? 0x0000ffffu : xpu::kFullMask);
}

template <bool kBug>
__global__ void shuffle_start_kernel(const float* in, float* out) {
  float x = in[threadIdx.x];
  for (int offset = kBug ? 8 : 16; offset > 0; offset /= 2) x += xpu::shuffle_xor(x, offset);
  out[threadIdx.x] = x;
}

// --- memory ------------------------------------------------------------------------------------

template <bool kBug>
__global__ void uninitialised_kernel(const float* in, float* out) {
  XPU_SHARED(float, s, [kThreads / 32 + 1]);
  const float sum = xpu::warp_sum(in[threadIdx.x]);
  if (threadIdx.x % 32 == 0) s[threadIdx.x / 32] = sum;
  xpu::sync_block();
  float total = 0.0f;
  for (int w = 0; w < kThreads / 32 + (kBug ? 1 : 0); ++w) total += s[w];
  out[threadIdx.x] = total;
}

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
__global__ void shared_past_end_kernel(const float* in, float* out) {
  XPU_DYN_SHARED(float, s);  // kThreads floats
  s[threadIdx.x] = in[threadIdx.x];
  if (kBug && threadIdx.x == 0) s[kThreads] = 1.0f;
  out[threadIdx.x] = s[threadIdx.x];
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
__global__ void causal_mask_kernel(const float* in, float* out) {
  const int query = threadIdx.x;
  float sum = 0.0f;
  for (int key = 0; key < kThreads; ++key) {
    if (kBug ? key >= query : key > query) continue;
    sum += in[key];
  }
  out[query] = sum;
}

// --- global memory and blocks --------------------------------------------------------------------

constexpr int kBlocks = 5, kMany = kBlocks * kThreads;

template <bool kBug>
__global__ void global_barrier_kernel(const float* in, float* scratch, float* out) {
  scratch[threadIdx.x] = in[threadIdx.x];
  if (!kBug) xpu::sync_block();
  out[threadIdx.x] = scratch[threadIdx.x == 0 ? 0 : threadIdx.x - 1];
}

/// The bytes of a mask, two of which share a shadow cell.
template <bool kBug>
__global__ void byte_barrier_kernel(const float* in, float* out) {
  XPU_SHARED(unsigned char, odd, [kThreads]);
  odd[threadIdx.x] = static_cast<int>(in[threadIdx.x]) % 2;
  if (!kBug) xpu::sync_block();
  out[threadIdx.x] = odd[threadIdx.x == 0 ? 0 : threadIdx.x - 1];
}

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

// --- asynchronous copies -------------------------------------------------------------------------

constexpr int kTiles = 7;

/// out[t] = sum over tiles of the neighbour's element. Two stages; the next tile is always in flight.
template <bool kNoBarrier, bool kShortWait>
__global__ void pipeline_kernel(const float* in, float* out) {
  XPU_SHARED(float, stages, [2][4 * kThreads]);
  const auto load = [&](int tile) {
    if (tile < kTiles) {
      xpu::copy_async<16>(&stages[tile % 2][4 * threadIdx.x],
                          in + (tile * kThreads + threadIdx.x) * 4);
    }
    xpu::copy_async_commit();
  };
  load(0);
  float sum = 0.0f;
  for (int tile = 0; tile < kTiles; ++tile) {
    load(tile + 1);
    xpu::copy_async_wait<kShortWait ? 2 : 1>();
    if (!kNoBarrier) xpu::sync_block();
    sum += stages[tile % 2][4 * ((threadIdx.x + 1) % kThreads)];
    xpu::sync_block();
  }
  out[threadIdx.x] = sum;
}

enum class RingBug { kNone, kShortExpect, kParity, kNoEmptyWait };

constexpr int kRingRows = 8, kRingColumns = 64;  // 1024 bytes

/// A producer thread fills two stages by TMA, a consumer warp adds up the tiles.
template <RingBug kBug>
__global__ void ring_kernel(const XPU_GRID_CONSTANT TensorMap map, float* out) {
  XPU_DYN_SHARED(bf16, stages);
  XPU_SHARED(Mbarrier, full, [2]);
  XPU_SHARED(Mbarrier, empty, [2]);
  if (threadIdx.x == 0) {
    for (int s = 0; s < 2; ++s) {
      xpu::mbarrier_init(&full[s], 1);
      xpu::mbarrier_init(&empty[s], 1);
    }
    xpu::mbarrier_init_fence();
  }
  xpu::sync_block();
  constexpr int kBytes = kRingRows * kRingColumns * 2;
  const int lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    for (int i = 0; i < kTiles; ++i) {
      const int s = i % 2;
      if (i >= 2 && kBug != RingBug::kNoEmptyWait) xpu::mbarrier_wait(&empty[s], (i / 2 - 1) & 1);
      xpu::mbarrier_arrive_expect(&full[s], kBug == RingBug::kShortExpect ? kBytes / 2 : kBytes);
      xpu::tma_load(stages + s * kRingRows * kRingColumns, map, 0, i * kRingRows, &full[s]);
    }
  } else if (threadIdx.x >= 32) {
    float sum = 0.0f;
    for (int i = 0; i < kTiles; ++i) {
      const int s = i % 2;
      xpu::mbarrier_wait(&full[s], (i / 2 + (kBug == RingBug::kParity ? 1 : 0)) & 1);
      // A sum over the tile does not depend on the swizzle.
      for (int j = lane; j < kRingRows * kRingColumns; j += 32) {
        sum += xpu::to_float(stages[s * kRingRows * kRingColumns + j]);
      }
      xpu::sync_warp();
      if (lane == 0) xpu::mbarrier_arrive(&empty[s]);
    }
    sum = xpu::warp_sum(sum);
    if (lane == 0) *out = sum;
  }
}

template <bool kBug>
__global__ void proxy_fence_kernel(const XPU_GRID_CONSTANT TensorMap map) {
  XPU_DYN_SHARED(bf16, tile);
  for (int i = threadIdx.x; i < kRingRows * kRingColumns; i += kThreads) {
    tile[i] = xpu::from_float<bf16>(1.0f);
  }
  if (!kBug) xpu::fence_proxy_async();
  xpu::sync_block();
  if (threadIdx.x == 0) {
    xpu::tma_store(map, 0, 0, tile);
    xpu::tma_store_commit();
    xpu::tma_store_wait<0>();
  }
}

/// The bug: tiles of neighbouring blocks share half of their rows, whose values are the same.
template <bool kBug>
__global__ void overlapping_stores_kernel(const XPU_GRID_CONSTANT TensorMap map) {
  XPU_DYN_SHARED(bf16, tile);
  for (int i = threadIdx.x; i < kRingRows * kRingColumns; i += kThreads) {
    tile[i] = xpu::from_float<bf16>(1.0f);
  }
  xpu::fence_proxy_async();
  xpu::sync_block();
  if (threadIdx.x == 0) {
    const int y = static_cast<int>(blockIdx.x) * kRingRows;
    xpu::tma_store(map, 0, kBug && y > 0 ? y - kRingRows / 2 : y, tile);
    xpu::tma_store_commit();
    xpu::tma_store_wait<0>();
  }
}

/// d = a b^T, 64 x 64 over kTiles * 64 of K: a producer thread, a ring of two stages, one warpgroup.
template <bool kBug>
__global__ void __launch_bounds__(256, 1)
    wgmma_ring_kernel(const XPU_GRID_CONSTANT TensorMap a_map,
                      const XPU_GRID_CONSTANT TensorMap b_map, float* out) {
  constexpr int kTile = 64 * 64;
  XPU_DYN_SHARED(bf16, stages);  // [2][a, b]
  XPU_SHARED(Mbarrier, full, [2]);
  XPU_SHARED(Mbarrier, empty, [2]);
  if (threadIdx.x == 0) {
    for (int s = 0; s < 2; ++s) {
      xpu::mbarrier_init(&full[s], 1);
      xpu::mbarrier_init(&empty[s], 1);
    }
    xpu::mbarrier_init_fence();
  }
  xpu::sync_block();
  if (threadIdx.x == 128) {
    for (int i = 0; i < kTiles; ++i) {
      const int s = i % 2;
      if (i >= 2) xpu::mbarrier_wait(&empty[s], (i / 2 - 1) & 1);
      xpu::mbarrier_arrive_expect(&full[s], 2 * kTile * 2);
      xpu::tma_load(stages + 2 * s * kTile, a_map, i * 64, 0, &full[s]);
      xpu::tma_load(stages + (2 * s + 1) * kTile, b_map, i * 64, 0, &full[s]);
    }
  }
  if (threadIdx.x >= 128) return;
  float d[32] = {};
  for (int i = 0; i < kTiles; ++i) {
    const int s = i % 2;
    xpu::mbarrier_wait(&full[s], i / 2 & 1);
    xpu::wgmma_fence();
    for (int k = 0; k < 4; ++k) {
      xpu::wgmma(d, xpu::wgmma_operand(stages + 2 * s * kTile + 16 * k),
                 xpu::wgmma_operand(stages + (2 * s + 1) * kTile + 16 * k), true);
    }
    xpu::wgmma_commit();
    if (kBug) {
      xpu::wgmma_wait<1>();  // this stage is still being read
      if (threadIdx.x == 0) xpu::mbarrier_arrive(&empty[s]);
    } else {
      xpu::wgmma_wait<0>();
      if (threadIdx.x == 0) xpu::mbarrier_arrive(&empty[s]);
    }
  }
  xpu::wgmma_wait<0>();
  const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, column = threadIdx.x % 4 * 2;
  for (int j = 0; j < 8; ++j) {
    for (int e = 0; e < 4; ++e) out[(row + e / 2 * 8) * 64 + 8 * j + column + e % 2] = d[4 * j + e];
  }
}

template <bool kBug>
__global__ void matrix_load_kernel(const bf16* in, float* out) {
  XPU_DYN_SHARED(bf16, tile);  // 16 rows of 16
  for (int i = threadIdx.x; i < 256; i += 32) tile[i] = in[i];
  xpu::sync_warp();
  std::uint32_t r[4];
  const int lane = threadIdx.x;
  // The bug: 16 rows, but lanes 16 to 31 should move 8 columns to the right, not 16 rows down.
  const bf16* row = kBug ? tile + lane * 16 : tile + lane % 16 * 16 + lane / 16 * 8;
  xpu::load_matrix_x4(r, row);
  out[lane] = xpu::to_float(bf16{static_cast<std::uint16_t>(r[0])});
}

// --- host ----------------------------------------------------------------------------------------

std::vector<float> counting(int n) {
  std::vector<float> x(n);
  for (int i = 0; i < n; ++i) x[i] = static_cast<float>(i % 37 + 1);
  return x;
}

/// Runs kernel(in, out) on one block and compares with want(in).
template <auto kKernel, class Want>
bool run_simple(int count, std::size_t shared, const Want& want) {
  const auto in = counting(count);
  Buffer<float> device_in(in), out(kThreads);
  xpu::launch<kKernel>({1, kThreads, shared}, device_in.get(), out.get());
  std::vector<float> expected(kThreads);
  for (int t = 0; t < kThreads; ++t) expected[t] = want(in, t);
  return out.host() == expected;
}

float neighbour(const std::vector<float>& in, int t) { return in[(t + 1) % kThreads]; }
float itself(const std::vector<float>& in, int t) { return in[t]; }

#define LH_SIMPLE(name, count, shared, want)                                    \
  bool name(bool bug) {                                                         \
    return bug ? run_simple<name##_kernel<true>>(count, shared, want)           \
               : run_simple<name##_kernel<false>>(count, shared, want);         \
  }

LH_SIMPLE(barrier_before_read, kThreads, 0, neighbour)
LH_SIMPLE(barrier_before_reuse, kThreads, 0,
          [](const auto& in, int t) { return 6.0f * neighbour(in, t); })
LH_SIMPLE(warp_sync, kThreads, 0, [](const auto& in, int t) { return in[t ^ 1]; })
LH_SIMPLE(divergent_shuffle, kThreads, 0, [](const auto& in, int t) { return in[t ^ 1]; })
LH_SIMPLE(named_barrier, kThreads, 0, neighbour)
LH_SIMPLE(shuffle_mask, kThreads, 0, [](const auto& in, int t) { return in[t ^ 1]; })
LH_SIMPLE(shuffle_start, kThreads, 0, [](const auto& in, int t) {
  return std::accumulate(in.begin() + t / 32 * 32, in.begin() + t / 32 * 32 + 32, 0.0f);
})
LH_SIMPLE(byte_barrier, kThreads, 0, [](const auto& in, int t) {
  return static_cast<float>(static_cast<int>(in[t == 0 ? 0 : t - 1]) % 2);
})
LH_SIMPLE(uninitialised, kThreads, 0,
          [](const auto& in, int) { return std::accumulate(in.begin(), in.end(), 0.0f); })
LH_SIMPLE(shared_past_end, kThreads, kThreads * sizeof(float), itself)
LH_SIMPLE(causal_mask, kThreads, 0, [](const auto& in, int t) {
  return std::accumulate(in.begin(), in.begin() + t + 1, 0.0f);
})
#undef LH_SIMPLE

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

template <auto kKernel>
bool run_pipeline() {
  const auto in = counting(4 * kThreads * kTiles);
  Buffer<float> device_in(in), out(kThreads);
  xpu::launch<kKernel>({1, kThreads}, device_in.get(), out.get());
  const auto got = out.host();
  for (int t = 0; t < kThreads; ++t) {
    float want = 0.0f;
    for (int i = 0; i < kTiles; ++i) want += in[4 * (i * kThreads + (t + 1) % kThreads)];
    if (got[t] != want) return false;
  }
  return true;
}

bool pipeline_barrier(bool bug) {
  return bug ? run_pipeline<pipeline_kernel<true, false>>()
             : run_pipeline<pipeline_kernel<false, false>>();
}
bool pipeline_wait(bool bug) {
  return bug ? run_pipeline<pipeline_kernel<false, true>>()
             : run_pipeline<pipeline_kernel<false, false>>();
}

template <RingBug kBug>
bool run_ring() {
  const int rows = kRingRows * kTiles;
  std::vector<bf16> in(static_cast<std::size_t>(rows) * kRingColumns);
  float want = 0.0f;
  for (std::size_t i = 0; i < in.size(); ++i) {
    in[i] = xpu::from_float<bf16>(static_cast<float>(i % 5 + i / 512));
    want += xpu::to_float(in[i]);
  }
  Buffer<bf16> device_in(in);
  Buffer<float> out(1);
  const TensorMap map = xpu::make_tensor_map(device_in.get(), 2, rows, kRingColumns,
                                             kRingColumns * 2, kRingRows, kRingColumns);
  xpu::launch<ring_kernel<kBug>>({1, 64, 2 * kRingRows * kRingColumns * sizeof(bf16)}, map,
                                 out.get());
  return out.host()[0] == want;
}

bool short_expect(bool bug) {
  return bug ? run_ring<RingBug::kShortExpect>() : run_ring<RingBug::kNone>();
}
bool wrong_parity(bool bug) {
  return bug ? run_ring<RingBug::kParity>() : run_ring<RingBug::kNone>();
}
bool no_empty_wait(bool bug) {
  return bug ? run_ring<RingBug::kNoEmptyWait>() : run_ring<RingBug::kNone>();
}

/// `blocks` tiles of ones; the last may lack rows.
template <auto kKernel>
bool run_stores(unsigned blocks, int missing_rows) {
  const int rows = static_cast<int>(blocks) * kRingRows - missing_rows;
  Buffer<bf16> out(static_cast<std::size_t>(rows) * kRingColumns);
  const TensorMap map = xpu::make_tensor_map(out.get(), 2, rows, kRingColumns, kRingColumns * 2,
                                             kRingRows, kRingColumns);
  xpu::launch<kKernel>({blocks, kThreads, kRingRows * kRingColumns * sizeof(bf16)}, map);
  for (const bf16 x : out.host()) {
    if (xpu::to_float(x) != 1.0f) return false;
  }
  return true;
}

bool proxy_fence(bool bug) {
  return bug ? run_stores<proxy_fence_kernel<true>>(1, 0)
             : run_stores<proxy_fence_kernel<false>>(1, 0);
}
bool overlapping_stores(bool bug) {
  const int missing = kRingRows / 2;
  return bug ? run_stores<overlapping_stores_kernel<true>>(2, missing)
             : run_stores<overlapping_stores_kernel<false>>(2, missing);
}

bool wgmma_wait(bool bug) {
  const int k = 64 * kTiles;
  std::vector<bf16> a(64 * static_cast<std::size_t>(k)), b(a.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    a[i] = xpu::from_float<bf16>(static_cast<float>(i % 7) - 3.0f);
    b[i] = xpu::from_float<bf16>(static_cast<float>(i % 11) - 5.0f);
  }
  Buffer<bf16> da(a), db(b);
  Buffer<float> out(64 * 64);
  const TensorMap ma = xpu::make_tensor_map(da.get(), 2, 64, k, k * 2, 64, 64);
  const TensorMap mb = xpu::make_tensor_map(db.get(), 2, 64, k, k * 2, 64, 64);
  const xpu::LaunchConfig config{1, 256, 4 * 64 * 64 * sizeof(bf16)};
  if (bug) xpu::launch<wgmma_ring_kernel<true>>(config, ma, mb, out.get());
  else xpu::launch<wgmma_ring_kernel<false>>(config, ma, mb, out.get());
  const auto got = out.host();
  for (int i = 0; i < 64; ++i) {
    for (int j = 0; j < 64; ++j) {
      float want = 0.0f;
      for (int x = 0; x < k; ++x) want += xpu::to_float(a[i * k + x]) * xpu::to_float(b[j * k + x]);
      if (got[i * 64 + j] != want) return false;
    }
  }
  return true;
}

bool matrix_load(bool bug) {
  std::vector<bf16> in(256);
  for (int i = 0; i < 256; ++i) in[i] = xpu::from_float<bf16>(static_cast<float>(i));
  Buffer<bf16> device_in(in);
  Buffer<float> out(32);
  const xpu::LaunchConfig config{1, 32, 256 * sizeof(bf16)};
  if (bug) xpu::launch<matrix_load_kernel<true>>(config, device_in.get(), out.get());
  else xpu::launch<matrix_load_kernel<false>>(config, device_in.get(), out.get());
  const auto got = out.host();
  for (int lane = 0; lane < 32; ++lane) {
    if (got[lane] != static_cast<float>(lane / 4 * 16 + lane % 4 * 2)) return false;
  }
  return true;
}

}  // namespace

const std::vector<PlantedBug>& planted_bugs() {
  static const std::vector<PlantedBug> all = {
      {"no barrier between a write and another thread's read", barrier_before_read},
      {"no barrier before shared memory is used again", barrier_before_reuse},
      {"no sync_warp between a write and another lane's read", warp_sync},
      {"shuffle that half of the warp does not reach", divergent_shuffle},
      {"named barrier that waits for too many threads", named_barrier},
      {"shuffle with lanes outside its mask", shuffle_mask},
      {"reduction that starts at the wrong lane distance", shuffle_start},
      {"read of shared memory nobody wrote", uninitialised},
      {"write one past the end of global memory", write_past_end},
      {"read one past the end of global memory", read_past_end},
      {"write one past the requested dynamic shared memory", shared_past_end},
      {"vector load at an unaligned address", misaligned_vector},
      {"causal mask one off", causal_mask},
      {"ldmatrix rows outside the tile", matrix_load},
      {"no barrier between single bytes of two threads", byte_barrier},
      {"no barrier between a write to global memory and another thread's read", global_barrier},
      {"two blocks write one element", overlapping_tiles},
      {"a block overwrites what another one reads", in_place},
      {"a block overwrites what all others read", cleared_scale},
      {"no device fence before a block counts itself", arrival<ArrivalBug::kNoFence>},
      {"device fence before the barrier, by one thread", arrival<ArrivalBug::kFenceTooEarly>},
      {"no barrier before a block counts itself", arrival<ArrivalBug::kNoBarrier>},
      {"no device fence after the last block counted itself", arrival<ArrivalBug::kNoSecondFence>},
      {"no barrier after cp.async arrived", pipeline_barrier},
      {"cp.async wait one group short", pipeline_wait},
      {"expect_tx with too few bytes", short_expect},
      {"mbarrier wait on the wrong parity", wrong_parity},
      {"producer does not wait for an empty stage", no_empty_wait},
      {"wgmma stage freed while it is read", wgmma_wait},
      {"no proxy fence before a TMA store", proxy_fence},
      {"TMA stores of two blocks overlap", overlapping_stores},
  };
  return all;
}

}  // namespace lh::test
