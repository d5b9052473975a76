// The ring of stages through which the keys and values of a warp pass in the bf16 decoding kernels.
#pragma once
#include "kernels/attention/decode/split.cuh"
#include "kernels/attention/softmax/tile.cuh"

namespace lh::kernels::decode {

using xpu::bf16;

constexpr int kTile = 16;      // keys
constexpr int kTileRows = 16;  // rows of a tile of mma.sync

template <int kD_, int kDV_>
struct Config {
  static constexpr int kD = kD_, kDV = kDV_;
  static constexpr int kStages = kD + kDV <= 128 ? 4 : kD + kDV <= 256 ? 3 : 2;
  static constexpr bool kHeld = kD <= 128;                   // q stays in registers
  static constexpr int kQuery = kHeld ? 0 : kTileRows * kD;  // elements
  static constexpr int kStage = kTile * (kD + kDV);
  static constexpr int kRing = kStages * kStage;
  static constexpr int kPitch = kDV + 8;  // floats; rows 1 apart start 8 banks apart
  static constexpr std::size_t kSharedBytes = (kWarps * kRing + kQuery) * sizeof(bf16);
  static_assert(kTileRows * kPitch * sizeof(float) <= kRing * sizeof(bf16));
};

/// Starts copying the keys from position `key` on, whose cache row is `row`, and their values. One warp.
template <class C, class Params>
__device__ inline void load_keys(const Params& p, const Work& w, int key, std::int64_t row,
                                 bf16* stage) {
  const int keys = imin(kTile, w.segment.key_length - key);
  softmax::load_tile<kTile, C::kD, 32>(stage, p.k + row * p.k_stride + w.kv_head * p.head_dim,
                                       p.k_stride, keys, p.head_dim);
  softmax::load_tile<kTile, C::kDV, 32>(stage + kTile * C::kD,
                                        p.v + row * p.v_stride + w.kv_head * p.value_dim,
                                        p.v_stride, keys, p.value_dim);
}

}  // namespace lh::kernels::decode
