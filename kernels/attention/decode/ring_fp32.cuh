// The ring of stages through which the keys and values of a warp pass in the fp32 decoding kernels.
#pragma once
#include "kernels/attention/decode/split.cuh"

namespace lh::kernels::decode::fp32 {

constexpr int kTile = 8, kPad = 4, kStages = 2;

/// k [kTile][head_dim + kPad], then v [kTile][value_dim].
XPU_HD int stage_floats(int head_dim, int value_dim) {
  return kTile * (head_dim + kPad + value_dim);
}

/// Starts copying rows [0, rows) of d floats; the rest of the tile's rows become zero. One warp.
__device__ inline void load_tile(float* tile, int pitch, const float* global, std::int64_t stride,
                                 int rows, int d) {
  for (int i = threadIdx.x % 32; i < kTile * d / 4; i += 32) {
    const int row = i / (d / 4), column = i % (d / 4) * 4;
    xpu::copy_async<16>(tile + row * pitch + column,
                        row < rows ? global + row * stride + column : global, row < rows);
  }
}

/// Starts copying the keys from position `key` on, whose cache row is `row`, and their values. One warp.
template <class Params>
__device__ inline void load_keys(const Params& p, const Work& w, int key, std::int64_t row,
                                 float* stage) {
  const int keys = imin(kTile, w.segment.key_length - key), pitch = p.head_dim + kPad;
  load_tile(stage, pitch, p.k + row * p.k_stride + w.kv_head * p.head_dim, p.k_stride, keys,
            p.head_dim);
  load_tile(stage + kTile * pitch, p.value_dim,
            p.v + row * p.v_stride + w.kv_head * p.value_dim, p.v_stride, keys, p.value_dim);
}

}  // namespace lh::kernels::decode::fp32
