// Softmax attention forward for Hopper, bf16, after FlashAttention-3 (Shah et al. 2024).
//   s_ij = scale q_i k_j + bias_j,  p_ij = exp(s_ij - lse_i),  out_i = sum_j p_ij v_j
// Tiling: a block of three warpgroups per (128 queries, head). One thread of the first asks the
//   copy engine for q and for tiles of 128 keys and values, which go round a ring of stages with a
//   full and an empty mbarrier each; the other two warpgroups, the consumers, own 64 query rows
//   each.
// Overlap: a consumer asks for the scores of a tile together with the p v of the tile before, and
//   its softmax runs while p v does. Named barriers hand the tensor cores back and forth between
//   the two consumers, so that the softmax of one also meets the products of the other.
// Products: s = q k^T from shared memory; p stays in registers as the left operand of p v, with v
//   read along its rows (transposed operand), so nothing is written back to shared memory.
// Shared memory: q, then stages of k and v, in swizzled sub-tiles (tile_sm90.cuh): 160 KiB at d =
//   128 (2 stages), 168 KiB at d = 96 (3), 144 KiB at d = 64 (4).
// Bias: the producer, a warp then, passes the bias of each tile (bias_sm90.cuh); up to 2.6 KiB more of
//   shared memory. Open keys outside the bias window come from copies without the closed ones between
//   them (key_walk.h): the copy engine cannot gather. Without a bias nothing of this is compiled.
// Masks: key tiles outside the mask are not visited (mask.h); rows of other documents or queries that a
//   box brings along are masked (scores), cleared (values) or not stored.
// Numerics: as fwd_bf16.cu. Determinism: bitwise; key tiles in the order of the walk.
// Registers: 40 for the producer, 232 for the consumers (setmaxnreg).
// Roofline, an unmeasured estimate: 4 d flops per visible pair; the published kernel of this design
//   reaches about 650 of 989 TFLOP/s at d 128, causal, 16k: 8 documents of 8192, 32 heads: 4.4
//   TFLOP, 6.8 ms. A bias adds an operation per pair to the softmax. With 10 % of the keys open and a
//   bias window of 128, a query tile visits a tenth of 4096 keys, half a tile more and 256 near keys: 18 %
//   of the flops, 1.2 ms, after 0.1 ms of copying (open_keys.cu).
#include "kernels/attention/attention_sm90.h"
#include "kernels/attention/checks.h"
#include "kernels/attention/softmax/bias_sm90.cuh"
#include "kernels/attention/softmax/key_walk.h"
#include "kernels/attention/softmax/tile_sm90.cuh"

namespace lh::kernels {

namespace softmax_sm90 {

static_assert(kOwnRows == kAttentionFwdSm90Tile);
constexpr int kN = 128;   // keys of a tile
constexpr int kTurn = 1;  // named barriers 1 and 2: the turn of each consumer

template <int kD_>
struct FwdConfig {
  static constexpr int kD = kD_;
  static constexpr int kStages = kD == 64 ? 4 : kD == 96 ? 3 : 2;
  using Query = Tile<kOwnRows, kD>;
  using Key = Tile<kN, kD>;
  static constexpr std::size_t kSharedBytes = Query::kBytes + 2 * kStages * Key::kBytes;
};

template <class C, bool kBias>
__global__ void __launch_bounds__(kThreads, 1)
    attention_fwd_sm90_kernel(const AttentionFwdParams<bf16> p,
                              const XPU_GRID_CONSTANT TensorMap q_map,
                              const XPU_GRID_CONSTANT TensorMap k_map,
                              const XPU_GRID_CONSTANT TensorMap v_map,
                              const XPU_GRID_CONSTANT TensorMap open_k_map,
                              const XPU_GRID_CONSTANT TensorMap open_v_map) {
  constexpr int kD = C::kD, kStages = C::kStages;
  using Query = typename C::Query;
  using Key = typename C::Key;
  XPU_DYN_SHARED(bf16, q_tile);
  XPU_SHARED(Mbarrier, q_full, [1]);
  XPU_SHARED(Mbarrier, k_full, [kStages]);
  XPU_SHARED(Mbarrier, v_full, [kStages]);
  XPU_SHARED(Mbarrier, k_empty, [kStages]);
  XPU_SHARED(Mbarrier, v_empty, [kStages]);
  // One more than stages: a stage is free for the next keys while the bias of its tile is still read,
  // but when the keys of the tile after it are done with, all threads have taken another turn.
  constexpr int kBiases = kStages + 1;
  XPU_SHARED(Mbarrier, bias_full, [kBiases]);
  XPU_SHARED(float, biases, [kBiases][kN]);
  bf16* const stages = q_tile + Query::kSize;

  const int head = blockIdx.x % p.heads, kv_head = head / (p.heads / p.kv_heads);
  const AttentionQueryTile work = p.schedule.query_tiles[blockIdx.x / p.heads];
  const AttentionSegment segment = p.schedule.segments[work.segment];
  const int rows = imin(kOwnRows, segment.query_length - work.first);
  if (rows <= 0) return;  // an empty work item
  const int first = segment.query_offset + work.first, last = first + rows - 1;  // positions
  const int row_begin = segment.query_begin + work.first;
  const auto walk = softmax::key_walk<kN, kBias>(p, segment, kv_head, first, last);
  const int tiles = walk.count();

  if (threadIdx.x == 0) {
    xpu::mbarrier_init(q_full, 1);
    for (int s = 0; s < kStages; ++s) {
      xpu::mbarrier_init(&k_full[s], 1);
      xpu::mbarrier_init(&v_full[s], 1);
      xpu::mbarrier_init(&k_empty[s], kConsumers);
      xpu::mbarrier_init(&v_empty[s], kConsumers);
    }
    if constexpr (kBias) {
      for (int b = 0; b < kBiases; ++b) xpu::mbarrier_init(&bias_full[b], 32);
    }
    xpu::mbarrier_init_fence();
  }
  xpu::sync_block();

  if (threadIdx.x < 128) {
    xpu::registers_shrink_to<40>();
    constexpr int kLoaders = kBias ? 32 : 1;
    if (threadIdx.x >= kLoaders || tiles == 0) return;
    const bool leader = threadIdx.x == 0;
    if (leader) {
      xpu::mbarrier_arrive_expect(q_full, Query::kBytes);
      Query::load(q_tile, q_map, head * kD, row_begin, q_full);
    }
    for (int i = 0; i < tiles; ++i) {
      const softmax::KeyTile at = walk.at(i);
      const int s = i % kStages, parity = (i / kStages - 1) & 1;
      bf16* k_tile = stages + 2 * s * Key::kSize;
      if (i >= kStages) xpu::mbarrier_wait(&k_empty[s], parity);
      // Consumers give keys back before they read the bias: a lane that has not seen this phase end would, once the
      // leader has filled the stage again, wait for the one after next.
      if constexpr (kBias) xpu::sync_warp();
      if (leader) {
        xpu::mbarrier_arrive_expect(&k_full[s], Key::kBytes);
        Key::load(k_tile, at.open ? open_k_map : k_map, kv_head * kD, at.row, &k_full[s]);
      }
      if constexpr (kBias) {
        pass_bias<kN>(biases[i % kBiases], softmax::rows_of(p, kv_head, at).bias, p.kv_heads,
                      at.length - at.key, &bias_full[i % kBiases]);
      }
      if (leader) {
        if (i >= kStages) xpu::mbarrier_wait(&v_empty[s], parity);
        xpu::mbarrier_arrive_expect(&v_full[s], Key::kBytes);
        Key::load(k_tile + Key::kSize, at.open ? open_v_map : v_map, kv_head * kD, at.row,
                  &v_full[s]);
      }
    }
    return;
  }

  xpu::registers_grow_to<232>();
  const int consumer = threadIdx.x / 128 - 1, thread = threadIdx.x % 128;
  const int lane = thread % 32, g = lane / 4, t = lane % 4;
  const int own_row = 64 * consumer + thread / 32 * 16 + g;  // and own_row + 8, in the query tile
  // Scores become units of log 2 here, or by the bias, which needs them before the maximum.
  const float to_log2 = p.scale * kLog2E, factor = kBias ? 1.0f : to_log2;
  float out[kD / 2] = {}, score[kN / 2], maximum[2] = {-kInf, -kInf}, sum[2] = {};
  std::uint32_t weights[kN / 16][4];

  const auto k_tile = [&](int i) { return stages + 2 * (i % kStages) * Key::kSize; };
  const auto v_tile = [&](int i) { return k_tile(i) + Key::kSize; };
  const auto phase = [](int i) { return i / kStages & 1; };
  // How many rows of the i-th tile are keys of the segment, at most kN of them.
  const auto keys_of = [&](int i) {
    const softmax::KeyTile at = walk.at(i);
    return at.length - at.key;
  };
  // Turns the scores of the i-th key tile into weights; rows of out are to be multiplied by correction.
  const auto soften = [&](int i, float(&correction)[2]) {
    const softmax::KeyTile at = walk.at(i);
    if constexpr (kBias) {
      xpu::mbarrier_wait(&bias_full[i % kBiases], i / kBiases & 1);
      add_bias<kN>(score, to_log2, biases[i % kBiases],
                   bias_pairs(p.mask, first, last, at.key, at.key + kN), p.mask.bias_window,
                   first + own_row, at.key);
    }
    if (needs_mask(p.mask, at.length, first, last, at.key, kN)) {
#pragma unroll
      for (int j = 0; j < kN / 8; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int position = first + own_row + e / 2 * 8;
          const int column = at.key + 8 * j + 2 * t + e % 2;
          if (!visible(p.mask, position, column, at.length)) score[4 * j + e] = -kInf;
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
      correction[half] = xpu::fast_exp2(maximum[half] - base);
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
      sum[half] = sum[half] * correction[half] + partial;
    }
  };

  if (tiles > 0) {
    float correction[2];
    xpu::mbarrier_wait(&k_full[0], 0);
    xpu::mbarrier_wait(q_full, 0);
    multiply_rows<Query, Key>(score, q_tile, 64 * consumer, k_tile(0));
    // The first consumer begins; each then waits for its turn and passes it on.
    if (consumer == 1 && tiles > 1) xpu::named_arrive(kTurn, 256);
    xpu::wgmma_wait<0>();
    if (thread == 0) xpu::mbarrier_arrive(&k_empty[0]);
    soften(0, correction);
    pack_weights<kN>(weights, score);
    int i = 1;
    for (; i < tiles; ++i) {
      const int s = i % kStages, before = (i - 1) % kStages;
      if constexpr (kBias) {
        if (i == walk.open_tiles() && keys_of(i - 1) < kN) {  // the last of the copies is cut
          xpu::mbarrier_wait(&v_full[before], phase(i - 1));
          clear_rows<Key>({v_tile(i - 1)}, keys_of(i - 1));
        }
      }
      xpu::mbarrier_wait(&k_full[s], phase(i));
      xpu::named_sync(kTurn + consumer, 256);
      multiply_rows<Query, Key>(score, q_tile, 64 * consumer, k_tile(i));
      xpu::mbarrier_wait(&v_full[before], phase(i - 1));
      multiply_weights<Key>(out, weights, v_tile(i - 1));
      // The last round of the second consumer has nobody to pass the turn to.
      if (consumer == 0 || i + 1 < tiles) xpu::named_arrive(kTurn + 1 - consumer, 256);
      xpu::wgmma_wait<1>();
      if (thread == 0) xpu::mbarrier_arrive(&k_empty[s]);
      soften(i, correction);
      xpu::wgmma_wait<0>();
      if (thread == 0) xpu::mbarrier_arrive(&v_empty[before]);
#pragma unroll
      for (int j = 0; j < kD / 2; ++j) out[j] *= correction[j / 2 % 2];
      pack_weights<kN>(weights, score);
    }
    --i;
    xpu::mbarrier_wait(&v_full[i % kStages], phase(i));
    if (keys_of(i) < kN) clear_rows<Key>({v_tile(i)}, keys_of(i));
    multiply_weights<Key>(out, weights, v_tile(i));
    xpu::wgmma_wait<0>();
  }

  float inverse[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float total = sum[half];
    total += xpu::shuffle_xor(total, 1);
    total += xpu::shuffle_xor(total, 2);
    inverse[half] = total == 0.0f ? 0.0f : 1.0f / total;
    const int row = own_row + 8 * half;
    if (t == 0 && row < rows) {
      p.lse[(std::int64_t{row_begin} + row) * p.heads + head] =
          total == 0.0f ? -kInf : maximum[half] * kLn2 + logf(total);
    }
  }
  store_rows<Query>(q_tile, out, 64 * consumer, inverse[0], inverse[1],
                    p.out + std::int64_t{row_begin} * p.out_stride + head * kD, p.out_stride, rows);
}

template <int kD>
void launch_fwd(const AttentionFwdParams<bf16>& p, xpu::Stream stream) {
  using C = FwdConfig<kD>;
  const auto blocks = static_cast<unsigned>(p.schedule.query_tile_count) *
                      static_cast<unsigned>(p.heads);
  const auto run = [&]<bool kBias> {
    xpu::launch<attention_fwd_sm90_kernel<C, kBias>>(
        {blocks, kThreads, C::kSharedBytes, stream}, p,
        tile_map<typename C::Query>(p.q, p.query_rows, p.heads, p.q_stride),
        tile_map<typename C::Key>(p.k, p.key_rows, p.kv_heads, p.k_stride),
        tile_map<typename C::Key>(p.v, p.key_rows, p.kv_heads, p.v_stride),
        open_map<typename C::Key>(p.open.k, p), open_map<typename C::Key>(p.open.v, p));
  };
  if (p.bias) {
    run.template operator()<true>();
  } else {
    run.template operator()<false>();
  }
}

}  // namespace softmax_sm90

bool attention_fwd_sm90_supported(const AttentionFwdParams<xpu::bf16>& p) {
  using softmax_sm90::aligned;
  return softmax_sm90::heads_supported(p) && !p.partial && aligned(p.q, p.q_stride) &&
         aligned(p.k, p.k_stride) && aligned(p.v, p.v_stride) && aligned(p.out, p.out_stride);
}

void attention_fwd_sm90(const AttentionFwdParams<xpu::bf16>& p, xpu::Stream stream) {
  if (!attention_fwd_sm90_supported(p)) {
    throw xpu::Error("attention_fwd_sm90: bf16 heads of 64, 96 or 128 in 16-byte aligned "
                     "rows, no partial result, got head dims " + std::to_string(p.head_dim) +
                     " and " + std::to_string(p.value_dim));
  }
  checks::require_shape(p, "attention_fwd_sm90");
  checks::require_open_keys(p, "attention_fwd_sm90");
  if (p.schedule.query_tile_count == 0) return;
  if (p.schedule.query_tile_rows != kAttentionFwdSm90Tile) {
    throw xpu::Error("attention_fwd_sm90: the schedule has tiles of 128 rows, got " +
                     std::to_string(p.schedule.query_tile_rows));
  }
  softmax_sm90::with_head_dim(p.head_dim, [&]<int kD> {
    softmax_sm90::launch_fwd<kD>(p, stream);
  });
}

}  // namespace lh::kernels
