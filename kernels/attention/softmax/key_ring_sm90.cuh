// The keys and values that pass a tile of queries on Hopper: a ring of stages that the copy engine fills
// and the consumers empty.
#pragma once
#include "kernels/attention/softmax/tile_sm90.cuh"

namespace lh::kernels::softmax_sm90 {

/// Where a block's tile of queries lies and what it sees. In shared memory, so that consumers, which
/// look at it once a tile, need no registers for it.
struct QueryPlace {
  int head, rows;             // present rows of the tile
  int row, first;             // of the first query: row of q, position
  int key_begin, key_length;  // of the segment
  int sink_end, begin, end;   // key tiles, as KeyTileRange

  __device__ void set(const AttentionMask& mask, int tile, int key_rows,
                      const AttentionSegment& segment, int query, int query_head) {
    head = query_head;
    rows = imin(tile, segment.query_length - query);
    row = segment.query_begin + query;
    first = segment.query_offset + query;
    key_begin = segment.key_begin;
    key_length = segment.key_length;
    const KeyTileRange keys = key_tile_range(mask, key_length, first, last(), key_rows);
    sink_end = keys.sink_end;
    begin = keys.begin;
    end = keys.end;
  }
  __device__ int last() const { return first + rows - 1; }
  __device__ KeyTileRange keys() const { return {sink_end, begin, end}; }
};

/// Lies in shared memory, beside kBytes of stages: tiles of keys and of values in turn, each with an
/// mbarrier that says full and one that says empty, so that either is given back as soon as it is used.
template <class Key, int kStages>
struct KeyRing {
  static constexpr std::size_t kBytes = 2 * kStages * Key::kBytes;
  Mbarrier k_full[kStages], v_full[kStages], k_empty[kStages], v_empty[kStages];

  /// One thread calls it; the caller orders it before all use.
  __device__ void start() {
    for (int s = 0; s < kStages; ++s) {
      xpu::mbarrier_init(&k_full[s], 1);
      xpu::mbarrier_init(&v_full[s], 1);
      xpu::mbarrier_init(&k_empty[s], kConsumers);
      xpu::mbarrier_init(&v_empty[s], kConsumers);
    }
  }

  /// One thread calls it: asks for the key tiles that `at` sees, from `column` of both maps on.
  __device__ void produce(bf16* stages, const TensorMap& k_map, const TensorMap& v_map, int column,
                          const QueryPlace& at) {
    const KeyTileRange range = at.keys();
    const int tiles = range.count();
    for (int i = 0; i < tiles; ++i) {
      const int s = i % kStages, row = at.key_begin + range.at(i) * Key::kRows;
      const int parity = (i / kStages - 1) & 1;
      if (i >= kStages) xpu::mbarrier_wait(&k_empty[s], parity);
      xpu::mbarrier_arrive_expect(&k_full[s], Key::kBytes);
      Key::load(keys(stages, i), k_map, column, row, &k_full[s]);
      if (i >= kStages) xpu::mbarrier_wait(&v_empty[s], parity);
      xpu::mbarrier_arrive_expect(&v_full[s], Key::kBytes);
      Key::load(values(stages, i), v_map, column, row, &v_full[s]);
    }
  }

  /// Where tile i lies.
  __device__ static bf16* keys(bf16* stages, int i) {
    return stages + 2 * (i % kStages) * Key::kSize;
  }
  __device__ static bf16* values(bf16* stages, int i) { return keys(stages, i) + Key::kSize; }

  __device__ void await_keys(int i) { xpu::mbarrier_wait(&k_full[i % kStages], phase(i)); }
  __device__ void await_values(int i) { xpu::mbarrier_wait(&v_full[i % kStages], phase(i)); }
  /// One thread of every consumer calls it when the tile may be overwritten.
  __device__ void release_keys(int i) { xpu::mbarrier_arrive(&k_empty[i % kStages]); }
  __device__ void release_values(int i) { xpu::mbarrier_arrive(&v_empty[i % kStages]); }

 private:
  __device__ static int phase(int i) { return i / kStages & 1; }
};

}  // namespace lh::kernels::softmax_sm90
