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
__global__ void shared_past_end_kernel(const float* in, float* out) {
  XPU_DYN_SHARED(float, s);  // kThreads floats
  s[threadIdx.x] = in[threadIdx.x];
  if (kBug && threadIdx.x == 0) s[kThreads] = 1.0f;
  out[threadIdx.x] = s[threadIdx.x];
}

/// The bytes of a mask, two of which share a shadow cell.
template <bool kBug>
__global__ void byte_barrier_kernel(const float* in, float* out) {
  XPU_SHARED(unsigned char, odd, [kThreads]);
  odd[threadIdx.x] = static_cast<int>(in[threadIdx.x]) % 2;
  if (!kBug) xpu::sync_block();
  out[threadIdx.x] = odd[threadIdx.x == 0 ? 0 : threadIdx.x - 1];
}

/// All threads read a word, the last but one then writes its second byte: the last to reach a
/// barrier is the first to go on.
template <bool kBug>
__global__ void byte_of_word_kernel(const float* in, float* out) {
  XPU_SHARED(std::uint16_t, word, [1]);
  if (threadIdx.x == 0) word[0] = static_cast<std::uint16_t>(in[0]);
  xpu::sync_block();
  out[threadIdx.x] = word[0];
  if (!kBug) xpu::sync_block();
  if (threadIdx.x == kThreads - 2) reinterpret_cast<unsigned char*>(word)[1] = 1;
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
LH_SIMPLE(byte_of_word, kThreads, 0, [](const auto& in, int) { return in[0]; })
LH_SIMPLE(uninitialised, kThreads, 0,
          [](const auto& in, int) { return std::accumulate(in.begin(), in.end(), 0.0f); })
LH_SIMPLE(shared_past_end, kThreads, kThreads * sizeof(float), itself)
LH_SIMPLE(causal_mask, kThreads, 0, [](const auto& in, int t) {
  return std::accumulate(in.begin(), in.begin() + t + 1, 0.0f);
})
#undef LH_SIMPLE

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

bool proxy_fence(bool bug) {
  Buffer<bf16> out(kRingRows * kRingColumns);
  const TensorMap map = xpu::make_tensor_map(out.get(), 2, kRingRows, kRingColumns,
                                             kRingColumns * 2, kRingRows, kRingColumns);
  const xpu::LaunchConfig config{1, kThreads, kRingRows * kRingColumns * sizeof(bf16)};
  if (bug) xpu::launch<proxy_fence_kernel<true>>(config, map);
  else xpu::launch<proxy_fence_kernel<false>>(config, map);
  for (const bf16 x : out.host()) {
    if (xpu::to_float(x) != 1.0f) return false;
  }
  return true;
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

std::vector<PlantedBug> planted_bugs() {
  std::vector<PlantedBug> all = {
      {"no barrier between a write and another thread's read", barrier_before_read},
      {"no barrier before shared memory is used again", barrier_before_reuse},
      {"no sync_warp between a write and another lane's read", warp_sync},
      {"shuffle that half of the warp does not reach", divergent_shuffle},
      {"named barrier that waits for too many threads", named_barrier},
      {"shuffle with lanes outside its mask", shuffle_mask},
      {"reduction that starts at the wrong lane distance", shuffle_start},
      {"read of shared memory nobody wrote", uninitialised},
      {"write one past the requested dynamic shared memory", shared_past_end},
      {"causal mask one off", causal_mask},
      {"ldmatrix rows outside the tile", matrix_load},
      {"no barrier between single bytes of two threads", byte_barrier},
      {"no barrier before one byte of a shared word is written", byte_of_word},
      {"no barrier after cp.async arrived", pipeline_barrier},
      {"cp.async wait one group short", pipeline_wait},
      {"expect_tx with too few bytes", short_expect},
      {"mbarrier wait on the wrong parity", wrong_parity},
      {"producer does not wait for an empty stage", no_empty_wait},
      {"wgmma stage freed while it is read", wgmma_wait},
      {"no proxy fence before a TMA store", proxy_fence},
  };
  const auto more = planted_global_bugs();
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

}  // namespace lh::test
