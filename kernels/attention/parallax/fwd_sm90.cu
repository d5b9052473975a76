// Parallax forward for Hopper, bf16: formulas as fwd_bf16.cu, design after FlashAttention-3 (Shah et al.
// 2024).
//   intercept_i = sum_j p_ij v_j,  out_i = intercept_i (1 + m_i - c_i) - sum_j p_ij (u_ij - c_i) v_j
// Tiling: a block of three warpgroups per (128 queries, head). One thread of the first asks the copy
//   engine for q, r and for tiles of keys and values, which go round a ring of stages
//   (softmax/key_ring_sm90.cuh); the other two warpgroups, the consumers, own 64 query rows and
//   their probes each. The second channel reads the same tiles, so it asks nothing more of global
//   memory but r.
// Overlap: named barriers hand the tensor cores back and forth between the two consumers: one asks for
//   both sums of the tile before, then for both scores of this tile, while the other forms its
//   weights, of which those of the softmax begin before u is there. Four products against one
//   exponential a pair: at d = 128 they take 1024 cycles a tile and consumer, all else some 600, so
//   one consumer's work hides behind the other's products.
// Products: q k^T and r k^T from shared memory; p and p (u - c) stay in registers as left operands.
// Registers: 24 for the producer, 240 for the consumers (setmaxnreg). The sums take d a thread, scores and
//   u as many as a tile has keys, 192 - d: 192 in all. Scores come where the weights of the tile before
//   were, hence after its sums. Sums and scores at once would take 224, and the compiler then
//   serialises the products. Where the tile lies stays in shared memory (QueryPlace).
// Shared memory: q, r, then 3 stages of k and v, swizzled (softmax/tile_sm90.cuh): d = 64 tiles of 128
//   keys, 128 KiB; d = 96 of 96, 156 KiB; d = 128 of 64, 160 KiB. Both outputs leave through the
//   tiles of q and r.
// Masks: key tiles outside the mask are not visited (mask.h); rows of other documents that a box
//   brings along are cleared and masked (keys), cleared (values) or not stored.
// Numerics: as fwd_bf16.cu. Determinism: bitwise; key tiles in ascending order.
// Roofline, an unmeasured estimate: 8 d flops per visible pair, twice softmax attention's on the same
//   bytes: at the 650 of 989 TFLOP/s of that kernel's design 8 documents of 8192, 32 heads of 128: 8.8
//   TFLOP, 13.5 ms, 2.0 times our softmax attention.
#include "kernels/attention/checks.h"
#include "kernels/attention/parallax/row.cuh"
#include "kernels/attention/parallax_sm90.h"
#include "kernels/attention/softmax/key_ring_sm90.cuh"

namespace lh::kernels {

namespace parallax_sm90 {

using namespace softmax_sm90;
using parallax::ProbeRow;
using parallax::Rescale;
using parallax::Weighed;

static_assert(kOwnRows == kParallaxFwdSm90Tile);
constexpr int kTurn = 1;  // named barriers 1 and 2: the turn of each consumer

template <int kD_>
struct FwdConfig {
  static constexpr int kD = kD_, kN = 192 - kD;  // keys of a tile
  using Query = Tile<kOwnRows, kD>;
  using Key = Tile<kN, kD>;
  using Ring = KeyRing<Key, 3>;
  static constexpr std::size_t kSharedBytes = 2 * Query::kBytes + Ring::kBytes;
};

template <class C>
__global__ void __launch_bounds__(kThreads, 1)
    parallax_fwd_sm90_kernel(const ParallaxFwdParams<bf16> p, const XPU_GRID_CONSTANT TensorMap q_map,
                             const XPU_GRID_CONSTANT TensorMap r_map,
                             const XPU_GRID_CONSTANT TensorMap k_map,
                             const XPU_GRID_CONSTANT TensorMap v_map) {
  constexpr int kD = C::kD, kN = C::kN;
  using Query = typename C::Query;
  using Key = typename C::Key;
  using Ring = typename C::Ring;
  XPU_DYN_SHARED(bf16, q_tile);
  XPU_SHARED(Mbarrier, own_full, [1]);
  XPU_SHARED(Ring, ring, [1]);
  XPU_SHARED(QueryPlace, at, [1]);
  bf16* const r_tile = q_tile + Query::kSize;
  bf16* const stages = r_tile + Query::kSize;

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
    xpu::mbarrier_arrive_expect(own_full, 2 * Query::kBytes);
    Query::load(q_tile, q_map, at->head * kD, at->row, own_full);
    Query::load(r_tile, r_map, at->head * kD, at->row, own_full);
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
  const float factor = p.scale * kLog2E;
  float plain[kD / 2] = {}, centred[kD / 2] = {};  // sums of p v and of p (u - c) v
  std::uint32_t weights[kN / 16][4], probe_weights[kN / 16][4];
  ProbeRow state[2];

  const auto await_keys = [&](int i) {
    ring->await_keys(i);
    const int keys = at->key_length - at->keys().at(i) * kN;  // only the last tile is cut
    if (keys < kN) {
      ring->await_values(i);
      clear_rows<Key>({Ring::keys(stages, i), Ring::values(stages, i)}, keys);
    }
  };
  const auto ask_scores = [&](float(&score)[kN / 2], int i) {
    multiply_rows<Query, Key>(score, q_tile, 64 * consumer, Ring::keys(stages, i));
  };
  const auto ask_probe = [&](float(&probe)[kN / 2], int i) {
    multiply_rows<Query, Key>(probe, r_tile, 64 * consumer, Ring::keys(stages, i));
  };
  const auto ask_sums = [&](int i) {
    ring->await_values(i);
    multiply_weights<Key>(plain, weights, Ring::values(stages, i));
    multiply_weights<Key>(centred, probe_weights, Ring::values(stages, i));
  };
  // Scores and u of key tile i are on their way, all else has arrived: they become weights.
  const auto weigh = [&](float(&score)[kN / 2], float(&probe)[kN / 2], int i) {
    xpu::wgmma_wait<1>();
    const int key = at->keys().at(i) * kN;
    if (needs_mask(p.mask, at->key_length, at->first, at->last(), key, kN)) {
#pragma unroll
      for (int j = 0; j < kN / 2; ++j) {
        const int position = at->first + own_row + j / 2 % 2 * 8;
        const int column = key + j / 4 * 8 + 2 * t + j % 2;
        if (!visible(p.mask, position, column, at->key_length)) score[j] = -kInf;
      }
    }
    float s[2][kN / 4];
    Weighed weighed[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int j = 0; j < kN / 4; ++j) s[half][j] = score[j / 2 * 4 + 2 * half + j % 2];
      weighed[half] = state[half].template weigh<4, true>(s[half], factor);
    }
    xpu::wgmma_wait<0>();
    if (thread == 0) ring->release_keys(i);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float u[kN / 4];
#pragma unroll
      for (int j = 0; j < kN / 4; ++j) u[j] = probe[j / 2 * 4 + 2 * half + j % 2];
      const Rescale rescale = state[half].template center_on<4>(s[half], u, weighed[half]);
#pragma unroll
      for (int j = 0; j < kN / 4; ++j) {
        score[j / 2 * 4 + 2 * half + j % 2] = s[half][j];
        probe[j / 2 * 4 + 2 * half + j % 2] = u[j];
      }
      if (xpu::ballot(rescale.factor != 1.0f)) {  // rare once the largest scores have been seen
#pragma unroll
        for (int j = 0; j < kD / 4; ++j) {
          const int e = j / 2 * 4 + 2 * half + j % 2;
          centred[e] = (centred[e] - rescale.shift * plain[e]) * rescale.factor;
          plain[e] *= rescale.factor;
        }
      }
    }
    pack_weights<kN>(weights, score);
    pack_weights<kN>(probe_weights, probe);
  };

  if (tiles > 0) {
    float score[kN / 2], probe[kN / 2];
    xpu::mbarrier_wait(own_full, 0);
    await_keys(0);
    ask_scores(score, 0);
    ask_probe(probe, 0);
    // The first consumer begins; each then waits for its turn and passes it on.
    if (consumer == 1 && tiles > 1) xpu::named_arrive(kTurn, 256);
    weigh(score, probe, 0);
    for (int i = 1; i < tiles; ++i) {
      await_keys(i);
      xpu::named_sync(kTurn + consumer, 256);
      ask_sums(i - 1);
      xpu::wgmma_wait<0>();
      if (thread == 0) ring->release_values(i - 1);
      ask_scores(score, i);
      ask_probe(probe, i);
      // The last round of the second consumer has nobody to pass the turn to.
      if (consumer == 0 || i + 1 < tiles) xpu::named_arrive(kTurn + 1 - consumer, 256);
      weigh(score, probe, i);
    }
    ask_sums(tiles - 1);
    xpu::wgmma_wait<0>();
  }

  float inverse[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    state[half].template finish<4>();
    inverse[half] = state[half].inverse();
    const float gain = 1.0f + state[half].beyond();
    const int row = own_row + 8 * half;
    if (t == 0 && row < at->rows) {
      const std::int64_t place = (std::int64_t{at->row} + row) * p.heads + at->head;
      p.lse[place] = state[half].lse();
      p.probe_mean[place] = state[half].probe_mean();
    }
#pragma unroll
    for (int j = 0; j < kD / 4; ++j) {
      const int e = j / 2 * 4 + 2 * half + j % 2;
      centred[e] = plain[e] * gain - centred[e];
    }
  }
  const std::int64_t row = at->row, column = at->head * kD;
  store_rows<Query>(q_tile, plain, 64 * consumer, inverse[0], inverse[1],
                    p.intercept + row * p.intercept_stride + column, p.intercept_stride, at->rows);
  store_rows<Query>(r_tile, centred, 64 * consumer, inverse[0], inverse[1],
                    p.out + row * p.out_stride + column, p.out_stride, at->rows);
}

template <int kD>
void launch_fwd(const ParallaxFwdParams<bf16>& p, xpu::Stream stream) {
  using C = FwdConfig<kD>;
  using Query = typename C::Query;
  using Key = typename C::Key;
  const auto blocks = static_cast<unsigned>(p.schedule.query_tile_count) *
                      static_cast<unsigned>(p.heads);
  xpu::launch<parallax_fwd_sm90_kernel<C>>(
      {blocks, kThreads, C::kSharedBytes, stream}, p,
      tile_map<Query>(p.q, p.query_rows, p.heads, p.q_stride),
      tile_map<Query>(p.r, p.query_rows, p.heads, p.r_stride),
      tile_map<Key>(p.k, p.key_rows, p.kv_heads, p.k_stride),
      tile_map<Key>(p.v, p.key_rows, p.kv_heads, p.v_stride));
}

}  // namespace parallax_sm90

bool parallax_fwd_sm90_supported(const ParallaxFwdParams<xpu::bf16>& p) {
  using softmax_sm90::aligned;
  return softmax_sm90::heads_supported(p) && !p.bias && !p.partial && aligned(p.q, p.q_stride) &&
         aligned(p.r, p.r_stride) && aligned(p.k, p.k_stride) && aligned(p.v, p.v_stride) &&
         aligned(p.out, p.out_stride) && aligned(p.intercept, p.intercept_stride);
}

void parallax_fwd_sm90(const ParallaxFwdParams<xpu::bf16>& p, xpu::Stream stream) {
  if (!parallax_fwd_sm90_supported(p)) {
    throw xpu::Error("parallax_fwd_sm90: bf16 heads of 64, 96 or 128 in 16-byte aligned rows "
                     "without bias, got head dims " + std::to_string(p.head_dim) + " and " +
                     std::to_string(p.value_dim));
  }
  checks::require_shape(p, "parallax_fwd_sm90");
  if (p.schedule.query_tile_count == 0) return;
  if (p.schedule.query_tile_rows != kParallaxFwdSm90Tile) {
    throw xpu::Error("parallax_fwd_sm90: the schedule has tiles of 128 rows, got " +
                     std::to_string(p.schedule.query_tile_rows));
  }
  softmax_sm90::with_head_dim(p.head_dim, [&]<int kD> {
    parallax_sm90::launch_fwd<kD>(p, stream);
  });
}

}  // namespace lh::kernels
