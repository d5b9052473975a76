// Softmax attention forward for Hopper, bf16, after FlashAttention-3 (Shah et al. 2024).
//   s_ij = scale q_i k_j,  p_ij = exp(s_ij - lse_i),  out_i = sum_j p_ij v_j
// Tiling: a block of three warpgroups per (128 queries, head). One thread of the first asks the copy engine for q
//   and for tiles of 128 keys and values, which go round a ring of stages with a full and an empty
//   mbarrier each; the other two warpgroups own 64 query rows each. While one of them is in its softmax, the
//   products of the other run: named barriers hand the tensor cores back and forth.
// Products: s = q k^T from shared memory; p stays in registers as the left operand of p v, with v read
//   along its rows (transposed operand), so nothing is written back to shared memory.
// Shared memory: q, then stages of k and v, in sub-tiles of 64 columns with the 128-byte swizzle: 160 KiB at
//   d = 128 (2 stages), 144 KiB at d = 64 (4 stages).
// Masks: key tiles outside the mask are not visited (mask.h); rows of other documents that a box brings along are
//   masked or not stored.
// Numerics: as fwd_bf16.cu. Determinism: bitwise; key tiles in ascending order.
// Registers: 40 for the producer, 232 for the consumers (setmaxnreg).
// Roofline, an unmeasured estimate: 4 d flops per visible pair; the published kernel of this design reaches
//   about 650 of 989 TFLOP/s at d 128, causal, 16k: 8 documents of 8192, 32 heads: 4.4 TFLOP, 6.8 ms.
#include "kernels/attention/attention_sm90.h"
#include "kernels/attention/mask.h"
#include "kernels/xpu/xpu.h"

namespace lh::kernels {

namespace softmax_sm90 {

using xpu::bf16;
using xpu::Mbarrier;
using xpu::TensorMap;

constexpr int kM = kAttentionFwdSm90Tile, kN = 128;
constexpr int kConsumers = 2, kThreads = 128 * (kConsumers + 1);
constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;
constexpr float kInf = __builtin_huge_valf();
constexpr int kTurn = 1;  // named barriers 1 and 2: the turn of each consumer
constexpr int kOwn = 3;   // 3 and 4: within each consumer

template <int kD_>
struct Config {
  static constexpr int kD = kD_;
  static constexpr int kStages = kD == 64 ? 4 : 2;
  static constexpr int kQuery = kM * kD, kTile = kN * kD;  // elements
  static constexpr std::size_t kSharedBytes = (kQuery + 2 * kStages * kTile) * sizeof(bf16);
};

/// Starts loading kRows x kD at (column, row) as sub-tiles of 64 columns.
template <int kRows, int kD>
__device__ inline void load_box(bf16* tile, const TensorMap& map, int column, int row,
                                Mbarrier* full) {
#pragma unroll
  for (int c = 0; c < kD / 64; ++c) {
    xpu::tma_load(tile + c * kRows * 64, map, column + 64 * c, row, full);
  }
}

template <class C>
__global__ void __launch_bounds__(kThreads, 1)
    attention_fwd_sm90_kernel(const AttentionFwdParams<bf16> p, const XPU_GRID_CONSTANT TensorMap q_map,
                              const XPU_GRID_CONSTANT TensorMap k_map,
                              const XPU_GRID_CONSTANT TensorMap v_map) {
  constexpr int kD = C::kD, kStages = C::kStages;
  XPU_DYN_SHARED(bf16, q_tile);
  XPU_SHARED(Mbarrier, q_full, [1]);
  XPU_SHARED(Mbarrier, k_full, [kStages]);
  XPU_SHARED(Mbarrier, v_full, [kStages]);
  XPU_SHARED(Mbarrier, k_empty, [kStages]);
  XPU_SHARED(Mbarrier, v_empty, [kStages]);
  bf16* const stages = q_tile + C::kQuery;

  const int head = blockIdx.x % p.heads, kv_head = head / (p.heads / p.kv_heads);
  const AttentionQueryTile work = p.schedule.query_tiles[blockIdx.x / p.heads];
  const AttentionSegment segment = p.schedule.segments[work.segment];
  const int rows = imin(kM, segment.query_length - work.first);
  if (rows <= 0) return;  // an empty work item
  const int first = segment.query_offset + work.first, last = first + rows - 1;  // positions
  const int row_begin = segment.query_begin + work.first;
  const KeyTileRange range = key_tile_range(p.mask, segment.key_length, first, last, kN);
  const int tiles = range.count();

  if (threadIdx.x == 0) {
    xpu::mbarrier_init(q_full, 1);
    for (int s = 0; s < kStages; ++s) {
      xpu::mbarrier_init(&k_full[s], 1);
      xpu::mbarrier_init(&v_full[s], 1);
      xpu::mbarrier_init(&k_empty[s], kConsumers);
      xpu::mbarrier_init(&v_empty[s], kConsumers);
    }
    xpu::mbarrier_init_fence();
  }
  xpu::sync_block();

  if (threadIdx.x < 128) {
    xpu::registers_shrink_to<40>();
    if (threadIdx.x != 0 || tiles == 0) return;
    xpu::mbarrier_arrive_expect(q_full, C::kQuery * 2);
    load_box<kM, kD>(q_tile, q_map, head * kD, row_begin, q_full);
    for (int i = 0; i < tiles; ++i) {
      const int s = i % kStages, row = segment.key_begin + range.at(i) * kN;
      const int parity = (i / kStages - 1) & 1;
      bf16* k_tile = stages + 2 * s * C::kTile;
      if (i >= kStages) xpu::mbarrier_wait(&k_empty[s], parity);
      xpu::mbarrier_arrive_expect(&k_full[s], C::kTile * 2);
      load_box<kN, kD>(k_tile, k_map, kv_head * kD, row, &k_full[s]);
      if (i >= kStages) xpu::mbarrier_wait(&v_empty[s], parity);
      xpu::mbarrier_arrive_expect(&v_full[s], C::kTile * 2);
      load_box<kN, kD>(k_tile + C::kTile, v_map, kv_head * kD, row, &v_full[s]);
    }
    return;
  }

  xpu::registers_grow_to<232>();
  const int consumer = threadIdx.x / 128 - 1, thread = threadIdx.x % 128;
  const int lane = thread % 32, g = lane / 4, t = lane % 4;
  const int own_row = 64 * consumer + thread / 32 * 16 + g;  // and own_row + 8, in the query tile
  const float factor = p.scale * kLog2E;
  float out[kD / 2] = {}, maximum[2] = {-kInf, -kInf}, sum[2] = {};

  // The first consumer begins; each then waits for its turn and passes it on.
  if (consumer == 1 && tiles > 0) xpu::named_arrive(kTurn, 256);
  if (tiles > 0) xpu::mbarrier_wait(q_full, 0);
  for (int i = 0; i < tiles; ++i) {
    const int s = i % kStages, phase = i / kStages & 1;
    const bf16* k_tile = stages + 2 * s * C::kTile;
    const bf16* v_tile = k_tile + C::kTile;
    float score[kN / 2];
    xpu::mbarrier_wait(&k_full[s], phase);
    xpu::named_sync(kTurn + consumer, 256);
    xpu::wgmma_fence();
#pragma unroll
    for (int step = 0; step < kD / 16; ++step) {
      const int offset = step % 4 * 16;
      xpu::wgmma(score,
                 xpu::wgmma_operand(q_tile + step / 4 * kM * 64 + 64 * consumer * 64 + offset),
                 xpu::wgmma_operand(k_tile + step / 4 * kN * 64 + offset), step > 0);
    }
    xpu::wgmma_commit();
    xpu::wgmma_wait<0>();
    // The last round of the second consumer has nobody to pass the turn to.
    if (consumer == 0 || i + 1 < tiles) xpu::named_arrive(kTurn + 1 - consumer, 256);
    if (thread == 0) xpu::mbarrier_arrive(&k_empty[s]);

    const int key = range.at(i) * kN;
    if (needs_mask(p.mask, segment.key_length, first, last, key, kN)) {
#pragma unroll
      for (int j = 0; j < kN / 8; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int position = first + own_row + e / 2 * 8, column = key + 8 * j + 2 * t + e % 2;
          if (!visible(p.mask, position, column, segment.key_length)) score[4 * j + e] = -kInf;
        }
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float top = score[2 * half];
#pragma unroll
      for (int j = 0; j < kN / 8; ++j) {
        top = fmaxf(top, fmaxf(score[4 * j + 2 * half], score[4 * j + 2 * half + 1]));
      }
      top = fmaxf(top, xpu::shuffle_xor(top, 1));
      top = fmaxf(top, xpu::shuffle_xor(top, 2));
      top = fmaxf(maximum[half], top * factor);
      const float base = top == -kInf ? 0.0f : top;  // a row that saw nothing so far
      const float correction = xpu::fast_exp2(maximum[half] - base);
      maximum[half] = top;
      float partial = 0.0f;
#pragma unroll
      for (int j = 0; j < kN / 8; ++j) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          float& x = score[4 * j + 2 * half + c];
          x = xpu::fast_exp2(x * factor - base);
          partial += x;
        }
      }
      sum[half] = sum[half] * correction + partial;
#pragma unroll
      for (int j = 0; j < kD / 8; ++j) {
        out[4 * j + 2 * half] *= correction;
        out[4 * j + 2 * half + 1] *= correction;
      }
    }

    xpu::mbarrier_wait(&v_full[s], phase);
    std::uint32_t weights[kN / 16][4];
#pragma unroll
    for (int step = 0; step < kN / 16; ++step) {
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        weights[step][r] = xpu::pack_rounded(score[8 * step + 2 * r], score[8 * step + 2 * r + 1]);
      }
    }
    xpu::wgmma_fence();
#pragma unroll
    for (int step = 0; step < kN / 16; ++step) {
      xpu::wgmma<xpu::kOuter>(out, weights[step],
                              xpu::wgmma_operand(v_tile + step * 16 * 64, 1024, kN * 128), true);
    }
    xpu::wgmma_commit();
    xpu::wgmma_wait<0>();
    if (thread == 0) xpu::mbarrier_arrive(&v_empty[s]);
  }

  // Rows of q that only this consumer has read take its output, for whole 16-byte stores.
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float total = sum[half];
    total += xpu::shuffle_xor(total, 1);
    total += xpu::shuffle_xor(total, 2);
    const float inverse = total == 0.0f ? 0.0f : 1.0f / total;
    const int row = own_row + 8 * half;
    if (t == 0 && row < rows) {
      p.lse[(std::int64_t{row_begin} + row) * p.heads + head] =
          total == 0.0f ? -kInf : maximum[half] * kLn2 + logf(total);
    }
#pragma unroll
    for (int j = 0; j < kD / 8; ++j) {
      bf16* line = q_tile + j / 8 * kM * 64 + row * 64 + ((j % 8) ^ (row % 8)) * 8;
      *reinterpret_cast<std::uint32_t*>(line + 2 * t) = xpu::pack_rounded(
          out[4 * j + 2 * half] * inverse, out[4 * j + 2 * half + 1] * inverse);
    }
  }
  xpu::named_sync(kOwn + consumer, 128);
  for (int i = thread; i < 64 * kD / 8; i += 128) {
    const int row = 64 * consumer + i / (kD / 8), chunk = i % (kD / 8);
    if (row < rows) {
      xpu::store_vec(
          p.out + (std::int64_t{row_begin} + row) * p.out_stride + head * kD + 8 * chunk,
          xpu::load_vec<8>(q_tile + chunk / 8 * kM * 64 + row * 64 + ((chunk % 8) ^ (row % 8)) * 8));
    }
  }
}

template <int kD>
void launch(const AttentionFwdParams<bf16>& p, xpu::Stream stream) {
  using C = Config<kD>;
  const auto map = [](const bf16* base, int rows, int heads, std::int64_t stride, int box_rows) {
    return xpu::make_tensor_map(base, 2, rows, static_cast<long>(heads) * kD, stride * 2, box_rows,
                                64);
  };
  const auto blocks = static_cast<unsigned>(p.schedule.query_tile_count) *
                      static_cast<unsigned>(p.heads);
  // A matrix without rows has no map; then no key is visible and the map is not used.
  const bool keys = p.key_rows > 0;
  const TensorMap q_map = map(p.q, p.query_rows, p.heads, p.q_stride, kM);
  xpu::launch<attention_fwd_sm90_kernel<C>>(
      {blocks, kThreads, C::kSharedBytes, stream}, p, q_map,
      keys ? map(p.k, p.key_rows, p.kv_heads, p.k_stride, kN) : q_map,
      keys ? map(p.v, p.key_rows, p.kv_heads, p.v_stride, kN) : q_map);
}

bool aligned(const void* base, std::int64_t stride) {
  return reinterpret_cast<std::uintptr_t>(base) % 16 == 0 && stride % 8 == 0;
}

}  // namespace softmax_sm90

bool attention_fwd_sm90_supported(const AttentionFwdParams<xpu::bf16>& p) {
  using softmax_sm90::aligned;
  return (p.head_dim == 64 || p.head_dim == 128) && p.value_dim == p.head_dim && !p.bias &&
         !p.partial && p.heads > 0 && p.kv_heads > 0 && p.heads % p.kv_heads == 0 &&
         aligned(p.q, p.q_stride) && aligned(p.k, p.k_stride) && aligned(p.v, p.v_stride) &&
         aligned(p.out, p.out_stride);
}

void attention_fwd_sm90(const AttentionFwdParams<xpu::bf16>& p, xpu::Stream stream) {
  if (!attention_fwd_sm90_supported(p)) {
    throw xpu::Error("attention_fwd_sm90: bf16 heads of 64 or 128 in 16-byte aligned rows without bias, got "
                     "head dims " + std::to_string(p.head_dim) + " and " +
                     std::to_string(p.value_dim));
  }
  if (p.schedule.query_tile_count == 0) return;
  if (p.schedule.query_tile_rows != kAttentionFwdSm90Tile) {
    throw xpu::Error("attention_fwd_sm90: the schedule has tiles of 128 rows, got " +
                     std::to_string(p.schedule.query_tile_rows));
  }
  if (p.head_dim == 64) {
    softmax_sm90::launch<64>(p, stream);
  } else {
    softmax_sm90::launch<128>(p, stream);
  }
}

}  // namespace lh::kernels
