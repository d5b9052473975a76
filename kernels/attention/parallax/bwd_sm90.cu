// Parallax backward for Hopper, bf16, from lse, probe_mean m and the row dots of bwd_prepare.cu: formulas
// as bwd_bf16.cu, design as softmax/bwd_sm90.cu.
//   ds_ij = p_ij (a_ij - t_i + e_ij (a_ij - b_i)),  du_ij = -p_ij (a_ij - b_i)
// Two passes of 5 + 6 products, against 8 in one pass over keys, which would have to add dq and dr up
//   across blocks (softmax/bwd_sm90.cu says what that costs).
// Tiling: a block of three warpgroups per (128 queries, head) or (128 keys, key head). One thread or warp of
//   the first asks the copy engine for the block's own tiles (q, r, dout; or k, v) and for the passing
//   ones, which go round a ring of stages (softmax/key_ring_sm90.cuh, query_ring_sm90.cuh); two consumer
//   warpgroups own 64 rows each. In the pass over keys the block walks the queries of all heads of its
//   group.
// Products: scores, u and a from shared memory; what they become, ds, du and p (1 + e), stays in
//   registers as left operands.
// Overlap: the exponentials of the scores run while u and a are made, and all elementwise work of one
//   consumer while the products of the other run.
// Registers: 24 for the producer, 240 for the consumers (setmaxnreg). Both sums of a pass take d a
//   thread, scores, u and a together 3/2 of the rows that pass at a time: at d = 64, 96 and 128 that is 96,
//   64 and 48 keys, 208, 192 and 200 in all, and 64, 64 and 48 queries, 160, 192 and 200.
// Shared memory, swizzled (softmax/tile_sm90.cuh): d = 64, 96, 128. dq and dr: q, r and dout, then 4
//   stages of k and v, 144, 168, 192 KiB. dk and dv: k and v, then 4 stages of q, r and dout, 128, 192, 208
//   KiB, and 16 bytes of statistics a query.
// Masks: tiles outside the mask are not visited; rows behind a segment that a box brings along are
//   cleared and masked (keys), cleared and have lse = +inf (queries), or are not stored (own rows).
// Numerics: as bwd_bf16.cu. Determinism: bitwise; every sum has one owner and a fixed order.
// Roofline, an unmeasured estimate: 22 d flops per visible pair, at the 650 of 989 TFLOP/s that the forward
//   design reaches; 8 documents of 8192, 32 heads of 128: 24 TFLOP, 37 ms, of the portable kernel's 78. Products
//   of 48 columns, at d = 128, read their operands from shared memory in 7/6 of the time they take.
#include "kernels/attention/parallax/row.cuh"
#include "kernels/attention/parallax_sm90.h"
#include "kernels/attention/softmax/key_ring_sm90.cuh"
#include "kernels/attention/softmax/query_ring_sm90.cuh"

namespace lh::kernels {

namespace parallax_sm90 {

using namespace softmax_sm90;
using parallax::pair_gradient;
using parallax::PairGradient;
using parallax::RowStatistics;

static_assert(kOwnRows == kParallaxBwdSm90QueryTile && kOwnRows == kParallaxBwdSm90KeyTile);

template <int kD_>
struct DqrConfig {
  static constexpr int kD = kD_, kN = 6144 / kD;  // keys that pass at a time
  using Own = Tile<kOwnRows, kD>;
  using Passing = Tile<kN, kD>;
  using Ring = KeyRing<Passing, 4>;
  static constexpr std::size_t kSharedBytes = 3 * Own::kBytes + Ring::kBytes;
};

template <class C>
__global__ void __launch_bounds__(kThreads, 1)
    parallax_bwd_dqr_sm90_kernel(const ParallaxBwdParams<bf16> p,
                                 const XPU_GRID_CONSTANT TensorMap q_map,
                                 const XPU_GRID_CONSTANT TensorMap r_map,
                                 const XPU_GRID_CONSTANT TensorMap dout_map,
                                 const XPU_GRID_CONSTANT TensorMap k_map,
                                 const XPU_GRID_CONSTANT TensorMap v_map) {
  constexpr int kD = C::kD, kN = C::kN;
  using Own = typename C::Own;
  using Passing = typename C::Passing;
  using Ring = typename C::Ring;
  XPU_DYN_SHARED(bf16, q_tile);
  XPU_SHARED(Mbarrier, own_full, [1]);
  XPU_SHARED(Ring, ring, [1]);
  XPU_SHARED(QueryPlace, at, [1]);
  bf16* const r_tile = q_tile + Own::kSize;
  bf16* const dout_tile = r_tile + Own::kSize;
  bf16* const stages = dout_tile + Own::kSize;

  const AttentionQueryTile work = p.schedule.query_tiles[blockIdx.x / p.heads];
  const AttentionSegment segment = p.schedule.segments[work.segment];
  if (work.first >= segment.query_length) return;  // an empty work item
  if (threadIdx.x == 0) {
    xpu::mbarrier_init(own_full, 1);
    ring->start();
    at->set(p.mask, kOwnRows, kN, segment, work.first, blockIdx.x % p.heads);
    xpu::mbarrier_init_fence();
  }
  xpu::sync_block();
  const int tiles = at->keys().count();

  if (threadIdx.x < 128) {
    xpu::registers_shrink_to<24>();
    if (threadIdx.x != 0 || tiles == 0) return;
    xpu::mbarrier_arrive_expect(own_full, 3 * Own::kBytes);
    Own::load(q_tile, q_map, at->head * kD, at->row, own_full);
    Own::load(r_tile, r_map, at->head * kD, at->row, own_full);
    Own::load(dout_tile, dout_map, at->head * kD, at->row, own_full);
    const int kv_head = at->head / (p.heads / p.kv_heads);
    ring->produce(stages, k_map, v_map, kv_head * kD, *at);
    return;
  }

  xpu::registers_grow_to<240>();
  // Of lane 0, so that addresses that depend on it are known to be the same in all lanes.
  const int consumer = xpu::shuffle(static_cast<int>(threadIdx.x / 128 - 1), 0);
  const int thread = threadIdx.x % 128;
  const int lane = thread % 32, g = lane / 4, t = lane % 4;
  const int own_row = 64 * consumer + thread / 32 * 16 + g;  // and own_row + 8, in the query tile
  const float to_log2 = p.scale * kLog2E;
  RowStatistics statistics[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = own_row + 8 * half;
    if (row < at->rows) {
      statistics[half].read(p.stats + std::int64_t{at->head} * p.query_rows + at->row + row,
                            std::int64_t{p.heads} * p.query_rows);
    }
  }

  float dq[kD / 2] = {}, dr[kD / 2] = {};
  if (tiles > 0) xpu::mbarrier_wait(own_full, 0);
  for (int i = 0; i < tiles; ++i) {
    bf16* const k_tile = Ring::keys(stages, i);
    bf16* const v_tile = Ring::values(stages, i);
    const int key = at->keys().at(i) * kN;
    ring->await_keys(i);
    if (at->key_length - key < kN) {  // the last tile of a segment
      ring->await_values(i);
      clear_rows<Passing>({k_tile, v_tile}, at->key_length - key);
    }
    float score[kN / 2], probe[kN / 2], value[kN / 2];  // s, then p, then ds; u, then du; a
    multiply_rows<Own, Passing>(score, q_tile, 64 * consumer, k_tile);
    multiply_rows<Own, Passing>(probe, r_tile, 64 * consumer, k_tile);
    ring->await_values(i);
    multiply_rows<Own, Passing>(value, dout_tile, 64 * consumer, v_tile);
    xpu::wgmma_wait<2>();
    if (needs_mask(p.mask, at->key_length, at->first, at->last(), key, kN)) {
#pragma unroll
      for (int j = 0; j < kN / 2; ++j) {
        const int position = at->first + own_row + j / 2 % 2 * 8;
        const int column = key + j / 4 * 8 + 2 * t + j % 2;
        if (!visible(p.mask, position, column, at->key_length)) score[j] = -kInf;
      }
    }
#pragma unroll
    for (int j = 0; j < kN / 2; ++j) {
      score[j] = xpu::fast_exp2(score[j] * to_log2 - statistics[j / 2 % 2].lse);
    }
    xpu::wgmma_wait<0>();
    if (thread == 0) ring->release_values(i);
#pragma unroll
    for (int j = 0; j < kN / 2; ++j) {
      const PairGradient pair =
          pair_gradient(score[j], probe[j], value[j], statistics[j / 2 % 2]);
      score[j] = pair.score;
      probe[j] = pair.probe;
    }
    std::uint32_t score_weights[kN / 16][4], probe_weights[kN / 16][4];
    pack_weights<kN>(score_weights, score);
    pack_weights<kN>(probe_weights, probe);
    multiply_weights<Passing>(dq, score_weights, k_tile);
    multiply_weights<Passing>(dr, probe_weights, k_tile);
    xpu::wgmma_wait<0>();
    if (thread == 0) ring->release_keys(i);
  }

  const std::int64_t row = at->row, column = at->head * kD;
  store_rows<Own>(q_tile, dq, 64 * consumer, p.scale, p.scale,
                  p.dq + row * p.dq_stride + column, p.dq_stride, at->rows);
  store_rows<Own>(r_tile, dr, 64 * consumer, 1.0f, 1.0f, p.dr + row * p.dr_stride + column,
                  p.dr_stride, at->rows);
}

template <int kD_>
struct DkvConfig {
  static constexpr int kD = kD_, kN = kD == 128 ? 48 : 64;  // queries that pass at a time
  using Own = Tile<kOwnRows, kD>;
  using Passing = Tile<kN, kD>;
  using Ring = QueryRing<Passing, 3, 4, 4>;  // q, r, dout; lse, total, plain, mean
  static constexpr std::size_t kSharedBytes = 2 * Own::kBytes + Ring::kBytes;
};

template <class C>
__global__ void __launch_bounds__(kThreads, 1)
    parallax_bwd_dkv_sm90_kernel(const XPU_GRID_CONSTANT ParallaxBwdParams<bf16> p,
                                 const XPU_GRID_CONSTANT TensorMap q_map,
                                 const XPU_GRID_CONSTANT TensorMap r_map,
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

  const AttentionKeyTile tile = p.schedule.key_tiles[blockIdx.x / p.kv_heads];
  if (tile.count == 0) return;  // an empty work item
  if (threadIdx.x == 0) {
    const int kv_head = blockIdx.x % p.kv_heads, group = p.heads / p.kv_heads;
    xpu::mbarrier_init(own_full, 1);
    ring->start();
    ring->walk = {&p.schedule, &p.mask, tile, kv_head * group, (kv_head + 1) * group, kN};
    xpu::mbarrier_init_fence();
  }
  xpu::sync_block();
  const AttentionKeyTile& work = ring->walk.work;  // in shared memory: consumers have no registers

  if (threadIdx.x < 128) {
    xpu::registers_shrink_to<24>();
    if (threadIdx.x >= 32) return;
    if (threadIdx.x == 0) {
      ring->walk.start();
      if (!ring->walk.done()) {
        const int column = blockIdx.x % p.kv_heads * kD;
        xpu::mbarrier_arrive_expect(own_full, 2 * Own::kBytes);
        Own::load(k_tile, k_map, column, work.first, own_full);
        Own::load(v_tile, v_map, column, work.first, own_full);
      }
    }
    ring->produce(stages, {&q_map, &r_map, &dout_map}, p.stats, p.heads, p.query_rows);
    return;
  }

  xpu::registers_grow_to<240>();
  const int consumer = xpu::shuffle(static_cast<int>(threadIdx.x / 128 - 1), 0);
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int own_row = 64 * consumer + threadIdx.x % 128 / 32 * 16 + g;  // and + 8, in the key tile
  const float to_log2 = p.scale * kLog2E;
  float dk[kD / 2] = {}, dv[kD / 2] = {};
  for (int i = 0;; ++i) {
    ring->await_tile(i, 0);
    const PassingQueries& at = ring->at(i);
    if (at.rows == 0) break;
    if (i == 0) xpu::mbarrier_wait(own_full, 0);
    bf16* const q_tile = Ring::tile(stages, i, 0);
    bf16* const r_tile = Ring::tile(stages, i, 1);
    bf16* const dout_tile = Ring::tile(stages, i, 2);
    if (at.rows < kN) {
      ring->await_tile(i, 1);
      ring->await_tile(i, 2);
      clear_rows<Passing>({q_tile, r_tile, dout_tile}, at.rows);
    }
    // Rows are keys, columns queries.
    float score[kN / 2], probe[kN / 2], value[kN / 2];  // s, u, a, then what they become
    multiply_rows<Own, Passing>(score, k_tile, 64 * consumer, q_tile);
    ring->await_tile(i, 1);
    multiply_rows<Own, Passing>(probe, k_tile, 64 * consumer, r_tile);
    ring->await_tile(i, 2);
    multiply_rows<Own, Passing>(value, v_tile, 64 * consumer, dout_tile);
    xpu::wgmma_wait<2>();
    // Own rows past the tile's end are not stored, so they need no mask.
    if (needs_mask(p.mask, at.key_length, at.query, at.last(), at.key, work.count)) {
#pragma unroll
      for (int j = 0; j < kN / 2; ++j) {
        const int position = at.query + j / 4 * 8 + 2 * t + j % 2;
        const int row = at.key + own_row + j / 2 % 2 * 8;
        if (!visible(p.mask, position, row, at.key_length)) score[j] = -kInf;
      }
    }
    ring->await_statistics(i);
#pragma unroll
    for (int j = 0; j < kN / 8; ++j) {
      const auto lse = xpu::load_vec<2>(ring->column(i, 0) + 8 * j + 2 * t);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        score[4 * j + e] = xpu::fast_exp2(score[4 * j + e] * to_log2 - lse[e % 2]);
      }
    }
    xpu::wgmma_wait<0>();
#pragma unroll
    for (int j = 0; j < kN / 8; ++j) {
      const auto total = xpu::load_vec<2>(ring->column(i, 1) + 8 * j + 2 * t);
      const auto plain = xpu::load_vec<2>(ring->column(i, 2) + 8 * j + 2 * t);
      const auto mean = xpu::load_vec<2>(ring->column(i, 3) + 8 * j + 2 * t);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const PairGradient pair =
            pair_gradient(score[4 * j + e], probe[4 * j + e], value[4 * j + e],
                          {0.0f, total[e % 2], plain[e % 2], mean[e % 2]});
        score[4 * j + e] = p.scale * pair.score;
        probe[4 * j + e] = pair.probe;
        value[4 * j + e] = pair.value;
      }
    }
    std::uint32_t score_weights[kN / 16][4], probe_weights[kN / 16][4], value_weights[kN / 16][4];
    pack_weights<kN>(value_weights, value);
    pack_weights<kN>(score_weights, score);
    pack_weights<kN>(probe_weights, probe);
    multiply_weights<Passing>(dv, value_weights, dout_tile);
    multiply_weights<Passing>(dk, score_weights, q_tile);
    multiply_weights<Passing>(dk, probe_weights, r_tile);
    xpu::wgmma_wait<0>();
    ring->release(i);
  }

  const std::int64_t row = work.first, column = blockIdx.x % p.kv_heads * kD;
  store_rows<Own>(k_tile, dk, 64 * consumer, 1.0f, 1.0f, p.dk + row * p.dk_stride + column,
                  p.dk_stride, work.count);
  store_rows<Own>(v_tile, dv, 64 * consumer, 1.0f, 1.0f, p.dv + row * p.dv_stride + column,
                  p.dv_stride, work.count);
}

/// Maps of what lies on the side of queries, then of keys.
template <class Query, class Key, class Launch>
void with_maps(const ParallaxBwdParams<bf16>& p, const Launch& launch) {
  launch(tile_map<Query>(p.q, p.query_rows, p.heads, p.q_stride),
         tile_map<Query>(p.r, p.query_rows, p.heads, p.r_stride),
         tile_map<Query>(p.dout, p.query_rows, p.heads, p.dout_stride),
         tile_map<Key>(p.k, p.key_rows, p.kv_heads, p.k_stride),
         tile_map<Key>(p.v, p.key_rows, p.kv_heads, p.v_stride));
}

template <int kD>
void launch_bwd(const ParallaxBwdParams<bf16>& p, xpu::Stream stream) {
  const auto blocks = [](int tiles, int heads) {
    return static_cast<unsigned>(tiles) * static_cast<unsigned>(heads);
  };
  if (p.schedule.query_tile_count > 0) {
    using C = DqrConfig<kD>;
    with_maps<typename C::Own, typename C::Passing>(p, [&](const auto&... maps) {
      xpu::launch<parallax_bwd_dqr_sm90_kernel<C>>(
          {blocks(p.schedule.query_tile_count, p.heads), kThreads, C::kSharedBytes, stream}, p,
          maps...);
    });
  }
  if (p.schedule.key_tile_count > 0) {
    using C = DkvConfig<kD>;
    with_maps<typename C::Passing, typename C::Own>(p, [&](const auto&... maps) {
      xpu::launch<parallax_bwd_dkv_sm90_kernel<C>>(
          {blocks(p.schedule.key_tile_count, p.kv_heads), kThreads, C::kSharedBytes, stream}, p,
          maps...);
    });
  }
}

}  // namespace parallax_sm90

bool parallax_bwd_sm90_supported(const ParallaxBwdParams<xpu::bf16>& p) {
  using softmax_sm90::aligned;
  return softmax_sm90::heads_supported(p) && !p.bias && !p.dbias && aligned(p.q, p.q_stride) &&
         aligned(p.r, p.r_stride) && aligned(p.k, p.k_stride) && aligned(p.v, p.v_stride) &&
         aligned(p.dout, p.dout_stride) && aligned(p.dq, p.dq_stride) &&
         aligned(p.dr, p.dr_stride) && aligned(p.dk, p.dk_stride) && aligned(p.dv, p.dv_stride);
}

void parallax_bwd_sm90(const ParallaxBwdParams<xpu::bf16>& p, xpu::Stream stream) {
  if (!parallax_bwd_sm90_supported(p)) {
    throw xpu::Error("parallax_bwd_sm90: bf16 heads of 64, 96 or 128 in 16-byte aligned rows "
                     "without bias, got head dims " + std::to_string(p.head_dim) + " and " +
                     std::to_string(p.value_dim));
  }
  const AttentionSchedule& work = p.schedule;
  const auto built_for = [](int tiles, int rows, int wanted) {
    return tiles == 0 || rows == wanted;
  };
  if (!built_for(work.query_tile_count, work.query_tile_rows, kParallaxBwdSm90QueryTile) ||
      !built_for(work.key_tile_count, work.key_tile_rows, kParallaxBwdSm90KeyTile)) {
    throw xpu::Error("parallax_bwd_sm90: the schedule has tiles of 128 queries and 128 keys, got " +
                     std::to_string(work.query_tile_rows) + " and " +
                     std::to_string(work.key_tile_rows));
  }
  softmax_sm90::with_head_dim(p.head_dim, [&]<int kD> {
    parallax_sm90::launch_bwd<kD>(p, stream);
  });
}

}  // namespace lh::kernels
