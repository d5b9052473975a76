// Softmax attention backward for Hopper, bf16, from lse and delta = rowsum(dout out) - dlse.
//   p_ij = exp(s_ij - lse_i),  ds_ij = p_ij (dout_i v_j - delta_i)
//   dq_i = scale sum_j ds_ij k_j,  dk_j = scale sum_i ds_ij q_i,  dv_j = sum_i p_ij dout_i,
//   dbias_j = sum_i ds_ij outside the bias window
// Two passes of 3 + 4 products, against 5 in one pass over keys. The one pass must add dq up across
//   blocks. Without atomics or waiting for other blocks that takes an fp32 dq per key tile, 4 d nq
//   nk / 128 bytes a head: 34 GB for 8 causal documents of 8192 tokens with 32 heads of 128, and 14
//   ms to write and read it at 4.8 TB/s, twice what the two products saved take (4.4 TFLOP, 7 ms).
//   It would also send ds through shared memory, whose rate then bounds it: dk and dq need ds in
//   both orders. Here each pass has the order it needs, rows of queries for dq and rows of keys for
//   dk and dv, so that p and ds stay in registers as left operands.
// Tiling: a block of three warpgroups, as forward, per (128 queries, head) or (128 keys, key head).
//   One warp of the first asks the copy engine for the block's own two tiles and for the passing
//   ones, which go round a ring of stages; two consumer warpgroups own 64 rows each. In the pass
//   over keys the block walks the queries of all heads of its group; the producer also brings lse,
//   delta and the place of each tile, so that the consumers keep no walk in registers.
// Overlap: the exponentials of s run while dout v is made, and all elementwise work of one consumer
//   while the products of the other run, of which there is twice as much (d 128, in cycles of
//   either unit).
// Shared memory: own tiles and stages, swizzled (tile_sm90.cuh). dq: 128 keys pass, in 2 stages at
//   d = 128 (192 KiB), 3 at 96 (192 KiB), 4 at 64 (160 KiB). dk and dv: 64 queries pass in 4 stages
//   (192, 144 KiB), at d = 64 128 in 4 (160 KiB), and 8 bytes of lse and delta a query.
// Registers: 24 for the producer, 240 for the consumers (setmaxnreg); accumulators take at most
//   192.
// Bias: compiled only where there is one. dq: as forward, copies of open keys included, 2 KiB at most.
//   dk and dv: bias and dbias of a thread's two keys in registers; dbias is summed over all heads of the
//   group and their queries, then over the four lanes of a row. Tiles that are all closed meet only
//   queries within the bias window.
// Masks: tiles outside the mask are not visited; rows behind a segment that a box brings
//   along are cleared and masked (keys), cleared and have lse = +inf (queries), or are not stored
//   (own rows).
// Numerics: products and sums fp32; p and ds are rounded to bf16 for the products they enter.
// Determinism: bitwise; every sum has one owner and a fixed order.
// Roofline, an unmeasured estimate: 14 d flops per visible pair. At the 650 of 989 TFLOP/s that the
//   forward design reaches: 8 documents of 8192, 32 heads of 128: 15.4 TFLOP, 24 ms. Closed keys cost
//   dk and dv what open ones do, but for whole tiles of them.
#include "kernels/attention/attention_sm90.h"
#include "kernels/attention/checks.h"
#include "kernels/attention/softmax/bias_sm90.cuh"
#include "kernels/attention/softmax/key_walk.h"
#include "kernels/attention/softmax/query_ring_sm90.cuh"

namespace lh::kernels {

namespace softmax_sm90 {

static_assert(kOwnRows == kAttentionBwdSm90QueryTile && kOwnRows == kAttentionBwdSm90KeyTile);

template <int kD_>
struct DqConfig {
  static constexpr int kD = kD_, kN = 128;  // keys that pass at a time
  static constexpr int kStages = kD == 64 ? 4 : kD == 96 ? 3 : 2;
  using Own = Tile<kOwnRows, kD>;
  using Passing = Tile<kN, kD>;
  static constexpr std::size_t kSharedBytes = 2 * Own::kBytes + 2 * kStages * Passing::kBytes;
};

template <class C, bool kBias>
__global__ void __launch_bounds__(kThreads, 1)
    attention_bwd_dq_sm90_kernel(const AttentionBwdParams<bf16> p,
                                 const XPU_GRID_CONSTANT TensorMap q_map,
                                 const XPU_GRID_CONSTANT TensorMap dout_map,
                                 const XPU_GRID_CONSTANT TensorMap k_map,
                                 const XPU_GRID_CONSTANT TensorMap v_map,
                                 const XPU_GRID_CONSTANT TensorMap open_k_map,
                                 const XPU_GRID_CONSTANT TensorMap open_v_map) {
  constexpr int kD = C::kD, kN = C::kN, kStages = C::kStages;
  using Own = typename C::Own;
  using Passing = typename C::Passing;
  XPU_DYN_SHARED(bf16, q_tile);
  XPU_SHARED(Mbarrier, own_full, [1]);
  XPU_SHARED(Mbarrier, k_full, [kStages]);
  XPU_SHARED(Mbarrier, v_full, [kStages]);
  XPU_SHARED(Mbarrier, k_empty, [kStages]);
  XPU_SHARED(Mbarrier, v_empty, [kStages]);
  XPU_SHARED(Mbarrier, bias_full, [kStages]);
  XPU_SHARED(float, biases, [kStages][kN]);
  bf16* const dout_tile = q_tile + Own::kSize;
  bf16* const stages = dout_tile + Own::kSize;

  const int head = blockIdx.x % p.heads, kv_head = head / (p.heads / p.kv_heads);
  const AttentionQueryTile work = p.schedule.query_tiles[blockIdx.x / p.heads];
  const AttentionSegment segment = p.schedule.segments[work.segment];
  const int rows = imin(kOwnRows, segment.query_length - work.first);
  if (rows <= 0) return;  // an empty work item
  const int first = segment.query_offset + work.first, last = first + rows - 1;  // positions
  const int row_begin = segment.query_begin + work.first;
  using Walk = softmax::KeyWalk<kN, kBias>;
  XPU_SHARED(Walk, shared_walk, [1]);  // the registers do not hold one with open keys
  const Walk own_walk = softmax::key_walk<kN, kBias>(p, segment, kv_head, first, last);
  const Walk& walk = kBias ? shared_walk[0] : own_walk;
  const int tiles = own_walk.count();

  if (threadIdx.x == 0) {
    xpu::mbarrier_init(own_full, 1);
    for (int s = 0; s < kStages; ++s) {
      xpu::mbarrier_init(&k_full[s], 1);
      xpu::mbarrier_init(&v_full[s], 1);
      xpu::mbarrier_init(&k_empty[s], kBias ? 4 * kConsumers : kConsumers);
      xpu::mbarrier_init(&v_empty[s], kConsumers);
      if constexpr (kBias) xpu::mbarrier_init(&bias_full[s], 32);
    }
    if constexpr (kBias) shared_walk[0] = own_walk;
    xpu::mbarrier_init_fence();
  }
  xpu::sync_block();

  if (threadIdx.x < 128) {
    xpu::registers_shrink_to<24>();
    constexpr int kLoaders = kBias ? 32 : 1;
    if (threadIdx.x >= kLoaders || tiles == 0) return;
    const bool leader = threadIdx.x == 0;
    if (leader) {
      xpu::mbarrier_arrive_expect(own_full, 2 * Own::kBytes);
      Own::load(q_tile, q_map, head * kD, row_begin, own_full);
      Own::load(dout_tile, dout_map, head * kD, row_begin, own_full);
    }
    for (int i = 0; i < tiles; ++i) {
      const softmax::KeyTile at = walk.at(i);
      const int s = i % kStages, parity = (i / kStages - 1) & 1;
      bf16* k_tile = stages + 2 * s * Passing::kSize;
      if (i >= kStages) xpu::mbarrier_wait(&k_empty[s], parity);
      if (leader) {
        xpu::mbarrier_arrive_expect(&k_full[s], Passing::kBytes);
        Passing::load(k_tile, at.open ? open_k_map : k_map, kv_head * kD, at.row, &k_full[s]);
        if (i >= kStages) xpu::mbarrier_wait(&v_empty[s], parity);
        xpu::mbarrier_arrive_expect(&v_full[s], Passing::kBytes);
        Passing::load(k_tile + Passing::kSize, at.open ? open_v_map : v_map, kv_head * kD, at.row,
                      &v_full[s]);
      }
      if constexpr (kBias) {
        pass_bias<kN>(biases[s], softmax::rows_of(p, kv_head, at).bias, p.kv_heads,
                      at.length - at.key, &bias_full[s]);
      }
    }
    return;
  }

  xpu::registers_grow_to<240>();
  const int consumer = threadIdx.x / 128 - 1, thread = threadIdx.x % 128;
  const int lane = thread % 32, g = lane / 4, t = lane % 4;
  const int own_row = 64 * consumer + thread / 32 * 16 + g;  // and own_row + 8, in the query tile
  const float to_log2 = p.scale * kLog2E;
  float lse[2], delta[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = own_row + 8 * half;
    const float* stat = p.stats + std::int64_t{head} * p.query_rows + row_begin + row;
    lse[half] = row < rows ? stat[0] : kInf;
    delta[half] = row < rows ? stat[std::int64_t{p.heads} * p.query_rows] : 0.0f;
  }

  float dq[kD / 2] = {};
  if (tiles > 0) xpu::mbarrier_wait(own_full, 0);
  for (int i = 0; i < tiles; ++i) {
    const softmax::KeyTile at = walk.at(i);
    const int s = i % kStages, phase = i / kStages & 1;
    bf16* const k_tile = stages + 2 * s * Passing::kSize;
    bf16* const v_tile = k_tile + Passing::kSize;
    float ds[kN / 2], dp[kN / 2];  // ds: first s, then p
    xpu::mbarrier_wait(&k_full[s], phase);
    if (at.length - at.key < kN) {
      xpu::mbarrier_wait(&v_full[s], phase);
      clear_rows<Passing>({k_tile, v_tile}, at.length - at.key);
    }
    multiply_rows<Own, Passing>(ds, q_tile, 64 * consumer, k_tile);
    xpu::mbarrier_wait(&v_full[s], phase);
    multiply_rows<Own, Passing>(dp, dout_tile, 64 * consumer, v_tile);
    xpu::wgmma_wait<1>();
    if constexpr (kBias) {
      xpu::mbarrier_wait(&bias_full[s], phase);
      add_bias<kN>(ds, to_log2, biases[s], bias_pairs(p.mask, first, last, at.key, at.key + kN),
                   p.mask.bias_window, first + own_row, at.key);
    }
    if (needs_mask(p.mask, at.length, first, last, at.key, kN)) {
#pragma unroll
      for (int j = 0; j < kN / 8; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int position = first + own_row + e / 2 * 8;
          const int column = at.key + 8 * j + 2 * t + e % 2;
          if (!visible(p.mask, position, column, at.length)) ds[4 * j + e] = -kInf;
        }
      }
    }
#pragma unroll
    for (int j = 0; j < kN / 2; ++j) {
      ds[j] = xpu::fast_exp2(ds[j] * (kBias ? 1.0f : to_log2) - lse[j / 2 % 2]);
    }
    xpu::wgmma_wait<0>();
    if (thread == 0) xpu::mbarrier_arrive(&v_empty[s]);
#pragma unroll
    for (int j = 0; j < kN / 2; ++j) ds[j] *= dp[j] - delta[j / 2 % 2];
    std::uint32_t weights[kN / 16][4];
    pack_weights<kN>(weights, ds);
    multiply_weights<Passing>(dq, weights, k_tile);
    xpu::wgmma_wait<0>();
    if constexpr (kBias) {  // a warp reads the bias for itself
      xpu::sync_warp();
      if (lane == 0) xpu::mbarrier_arrive(&k_empty[s]);
    } else {
      if (thread == 0) xpu::mbarrier_arrive(&k_empty[s]);
    }
  }

  store_rows<Own>(q_tile, dq, 64 * consumer, p.scale, p.scale,
                  p.dq + std::int64_t{row_begin} * p.dq_stride + head * kD, p.dq_stride, rows);
}

template <int kD_>
struct DkvConfig {
  static constexpr int kD = kD_, kN = kD == 64 ? 128 : 64;  // queries that pass at a time
  using Own = Tile<kOwnRows, kD>;
  using Passing = Tile<kN, kD>;
  using Ring = QueryRing<Passing, 2, 2, 4>;  // q, dout; lse, delta
  static constexpr std::size_t kSharedBytes = 2 * Own::kBytes + Ring::kBytes;
};

template <class C, bool kBias>
__global__ void __launch_bounds__(kThreads, 1)
    attention_bwd_dkv_sm90_kernel(const XPU_GRID_CONSTANT AttentionBwdParams<bf16> p,
                                  const XPU_GRID_CONSTANT TensorMap q_map,
                                  const XPU_GRID_CONSTANT TensorMap dout_map,
                                  const XPU_GRID_CONSTANT TensorMap k_map,
                                  const XPU_GRID_CONSTANT TensorMap v_map) {
  constexpr int kD = C::kD, kN = C::kN;
  using Own = typename C::Own;
  using Passing = typename C::Passing;
  using Ring = typename C::Ring;
  XPU_DYN_SHARED(bf16, k_tile);
  XPU_SHARED(Mbarrier, own_full, [1]);
  XPU_SHARED(Ring, ring, [1]);
  bf16* const v_tile = k_tile + Own::kSize;
  bf16* const stages = v_tile + Own::kSize;

  const int kv_head = blockIdx.x % p.kv_heads, group = p.heads / p.kv_heads;
  const AttentionKeyTile work = p.schedule.key_tiles[blockIdx.x / p.kv_heads];
  if (work.count == 0) return;  // an empty work item
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;

  if (threadIdx.x == 0) {
    xpu::mbarrier_init(own_full, 1);
    ring->start();
    ring->walk = {&p.schedule, &p.mask, work, kv_head * group, (kv_head + 1) * group, kN};
    if constexpr (kBias) ring->walk.closed = softmax::closed(p, kv_head, work);
    xpu::mbarrier_init_fence();
  }
  xpu::sync_block();

  if (threadIdx.x < 128) {
    xpu::registers_shrink_to<24>();
    if (warp > 0) return;
    if (lane == 0) {
      ring->walk.start();
      if (!ring->walk.done()) {
        xpu::mbarrier_arrive_expect(own_full, 2 * Own::kBytes);
        Own::load(k_tile, k_map, kv_head * kD, work.first, own_full);
        Own::load(v_tile, v_map, kv_head * kD, work.first, own_full);
      }
    }
    ring->produce(stages, {&q_map, &dout_map}, p.stats, p.heads, p.query_rows);
    return;
  }

  xpu::registers_grow_to<240>();
  const int consumer = threadIdx.x / 128 - 1, g = lane / 4, t = lane % 4;
  const int own_row = 64 * consumer + warp % 4 * 16 + g;  // and own_row + 8, in the key tile
  const float to_log2 = p.scale * kLog2E;
  float dk[kD / 2] = {}, dv[kD / 2] = {}, bias[2] = {}, dbias[2] = {};
  if constexpr (kBias) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = own_row + 8 * half;
      if (row < work.count) {
        bias[half] = p.bias[(std::int64_t{work.first} + row) * p.kv_heads + kv_head] * kLog2E;
      }
    }
  }
  for (int i = 0;; ++i) {
    ring->await_tile(i, 0);
    const PassingQueries at = ring->at(i);
    if (at.rows == 0) break;
    if (i == 0) xpu::mbarrier_wait(own_full, 0);
    bf16* const q_tile = Ring::tile(stages, i, 0);
    bf16* const dout_tile = Ring::tile(stages, i, 1);
    if (at.rows < kN) {
      ring->await_tile(i, 1);
      clear_rows<Passing>({q_tile, dout_tile}, at.rows);
    }
    // Rows are keys, columns queries.
    float prob[kN / 2], ds[kN / 2];  // prob: first s; ds: first dout v
    multiply_rows<Own, Passing>(prob, k_tile, 64 * consumer, q_tile);
    ring->await_tile(i, 1);
    multiply_rows<Own, Passing>(ds, v_tile, 64 * consumer, dout_tile);
    xpu::wgmma_wait<1>();
    const BiasPairs pairs =
        bias_pairs(p.mask, at.query, at.last(), at.key, at.key + work.count);
    const int distance = at.query + 2 * t - at.key - own_row;  // of the thread's first pair
    if constexpr (kBias) {
      add_key_bias<kN>(prob, to_log2, bias, pairs, p.mask.bias_window, distance);
    }
    // Own rows past the tile's end are not stored, so they need no mask.
    if (needs_mask(p.mask, at.key_length, at.query, at.last(), at.key, work.count)) {
#pragma unroll
      for (int j = 0; j < kN / 8; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int position = at.query + 8 * j + 2 * t + e % 2, row = at.key + own_row + e / 2 * 8;
          if (!visible(p.mask, position, row, at.key_length)) prob[4 * j + e] = -kInf;
        }
      }
    }
    ring->await_statistics(i);
#pragma unroll
    for (int j = 0; j < kN / 8; ++j) {
      const auto lse = xpu::load_vec<2>(ring->column(i, 0) + 8 * j + 2 * t);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        prob[4 * j + e] = xpu::fast_exp2(prob[4 * j + e] * (kBias ? 1.0f : to_log2) - lse[e % 2]);
      }
    }
    xpu::wgmma_wait<0>();
#pragma unroll
    for (int j = 0; j < kN / 8; ++j) {
      const auto delta = xpu::load_vec<2>(ring->column(i, 1) + 8 * j + 2 * t);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        ds[4 * j + e] = prob[4 * j + e] * (ds[4 * j + e] - delta[e % 2]);
      }
    }
    if constexpr (kBias) sum_key_bias<kN>(dbias, ds, pairs, p.mask.bias_window, distance);
    std::uint32_t prob_weights[kN / 16][4], ds_weights[kN / 16][4];
    pack_weights<kN>(prob_weights, prob);
    pack_weights<kN>(ds_weights, ds);
    multiply_weights<Passing>(dv, prob_weights, dout_tile);
    multiply_weights<Passing>(dk, ds_weights, q_tile);
    xpu::wgmma_wait<0>();
    ring->release(i);
  }

  store_rows<Own>(k_tile, dk, 64 * consumer, p.scale, p.scale,
                  p.dk + std::int64_t{work.first} * p.dk_stride + kv_head * kD, p.dk_stride,
                  work.count);
  store_rows<Own>(v_tile, dv, 64 * consumer, 1.0f, 1.0f,
                  p.dv + std::int64_t{work.first} * p.dv_stride + kv_head * kD, p.dv_stride,
                  work.count);
  if constexpr (kBias) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float total = dbias[half];
      total += xpu::shuffle_xor(total, 1);
      total += xpu::shuffle_xor(total, 2);
      const int row = own_row + 8 * half;
      if (p.dbias && t == 0 && row < work.count) {
        p.dbias[(std::int64_t{work.first} + row) * p.kv_heads + kv_head] = total;
      }
    }
  }
}

template <int kD, bool kBias>
void launch_bwd(const AttentionBwdParams<bf16>& p, xpu::Stream stream) {
  const auto blocks = [](int tiles, int heads) {
    return static_cast<unsigned>(tiles) * static_cast<unsigned>(heads);
  };
  if (p.schedule.query_tile_count > 0) {
    using C = DqConfig<kD>;
    using Query = typename C::Own;
    using Key = typename C::Passing;
    xpu::launch<attention_bwd_dq_sm90_kernel<C, kBias>>(
        {blocks(p.schedule.query_tile_count, p.heads), kThreads, C::kSharedBytes, stream}, p,
        tile_map<Query>(p.q, p.query_rows, p.heads, p.q_stride),
        tile_map<Query>(p.dout, p.query_rows, p.heads, p.dout_stride),
        tile_map<Key>(p.k, p.key_rows, p.kv_heads, p.k_stride),
        tile_map<Key>(p.v, p.key_rows, p.kv_heads, p.v_stride), open_map<Key>(p.open.k, p),
        open_map<Key>(p.open.v, p));
  }
  if (p.schedule.key_tile_count > 0) {
    using C = DkvConfig<kD>;
    using Query = typename C::Passing;
    using Key = typename C::Own;
    xpu::launch<attention_bwd_dkv_sm90_kernel<C, kBias>>(
        {blocks(p.schedule.key_tile_count, p.kv_heads), kThreads, C::kSharedBytes, stream}, p,
        tile_map<Query>(p.q, p.query_rows, p.heads, p.q_stride),
        tile_map<Query>(p.dout, p.query_rows, p.heads, p.dout_stride),
        tile_map<Key>(p.k, p.key_rows, p.kv_heads, p.k_stride),
        tile_map<Key>(p.v, p.key_rows, p.kv_heads, p.v_stride));
  }
}

}  // namespace softmax_sm90

bool attention_bwd_sm90_supported(const AttentionBwdParams<xpu::bf16>& p) {
  using softmax_sm90::aligned;
  return softmax_sm90::heads_supported(p) && (p.bias || !p.dbias) && aligned(p.q, p.q_stride) &&
         aligned(p.k, p.k_stride) && aligned(p.v, p.v_stride) && aligned(p.dout, p.dout_stride) &&
         aligned(p.dq, p.dq_stride) && aligned(p.dk, p.dk_stride) && aligned(p.dv, p.dv_stride);
}

void attention_bwd_sm90(const AttentionBwdParams<xpu::bf16>& p, xpu::Stream stream) {
  if (!attention_bwd_sm90_supported(p)) {
    throw xpu::Error("attention_bwd_sm90: bf16 heads of 64, 96 or 128 in 16-byte aligned "
                     "rows, dbias with a bias only, got head dims " + std::to_string(p.head_dim) +
                     " and " + std::to_string(p.value_dim));
  }
  checks::require_open_keys(p, "attention_bwd_sm90");
  checks::require_closed_runs(p, "attention_bwd_sm90");
  const AttentionSchedule& work = p.schedule;
  const auto built_for = [](int tiles, int rows, int wanted) {
    return tiles == 0 || rows == wanted;
  };
  if (!built_for(work.query_tile_count, work.query_tile_rows, kAttentionBwdSm90QueryTile) ||
      !built_for(work.key_tile_count, work.key_tile_rows, kAttentionBwdSm90KeyTile)) {
    throw xpu::Error("attention_bwd_sm90: the schedule has tiles of 128 queries and 128 keys, "
                     "got " + std::to_string(work.query_tile_rows) + " and " +
                     std::to_string(work.key_tile_rows));
  }
  softmax_sm90::with_head_dim(p.head_dim, [&]<int kD> {
    if (p.bias) {
      softmax_sm90::launch_bwd<kD, true>(p, stream);
    } else {
      softmax_sm90::launch_bwd<kD, false>(p, stream);
    }
  });
}

}  // namespace lh::kernels
