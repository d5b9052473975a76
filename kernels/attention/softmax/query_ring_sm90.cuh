// The queries that pass a tile of keys on Hopper: a ring of stages that the copy engine and one warp
// fill and the consumers empty.
#pragma once
#include "kernels/attention/softmax/query_walk.h"
#include "kernels/attention/softmax/tile_sm90.cuh"

namespace lh::kernels::softmax_sm90 {

/// A passing tile of queries; positions as in mask.h.
struct PassingQueries {
  int rows;                    // 0: there are no more tiles
  int row, head;               // of the first query in the tensors
  int query, key, key_length;  // positions of the first query and of the block's first key

  __device__ int last() const { return query + rows - 1; }
};

/// Lies in shared memory, beside kBytes of stages. A stage has kTiles tiles of the same queries, each
/// with an mbarrier that says full, and kColumns of the statistics a query; all are given back at once.
template <class Query, int kTiles, int kColumns, int kStages>
struct QueryRing {
  static constexpr int kRows = Query::kRows;
  static constexpr std::size_t kBytes = kTiles * kStages * Query::kBytes;
  Mbarrier full[kStages][kTiles], statistics_full[kStages], empty[kStages];
  softmax::QueryWalk walk;  // of the leading lane, which has 24 registers
  PassingQueries passing[kStages];
  float statistics[kStages][kColumns][kRows];

  /// One thread calls it; the caller orders it before all use.
  __device__ void start() {
    for (int s = 0; s < kStages; ++s) {
      for (int tile = 0; tile < kTiles; ++tile) xpu::mbarrier_init(&full[s][tile], 1);
      xpu::mbarrier_init(&statistics_full[s], 32);
      xpu::mbarrier_init(&empty[s], 4 * kConsumers);  // a warp reads statistics for itself
    }
  }

  /// One warp calls it, and its lane 0 has started the walk: asks for the tiles of all queries on the
  /// walk, one of each map, and brings columns [kColumns, heads, query_rows] of stats. The first one
  /// is lse; rows past a tile's end have one of +inf, so that their weights are 0, and else zeros.
  __device__ void produce(bf16* stages, const TensorMap* const (&maps)[kTiles], const float* stats,
                          int heads, int query_rows) {
    const int lane = threadIdx.x % 32;
    for (int i = 0;; ++i) {
      const int s = i % kStages;
      if (i >= kStages) xpu::mbarrier_wait(&empty[s], (i / kStages - 1) & 1);
      if (lane == 0) {
        if (walk.done()) {
          passing[s].rows = 0;
          xpu::mbarrier_arrive(&full[s][0]);
        } else {
          const AttentionSegment& segment = walk.segment;
          const int row = segment.query_begin + walk.begin, head = walk.head;
          passing[s] = {walk.rows(), row, head, segment.query_offset + walk.begin,
                        walk.key_position(), segment.key_length};
#pragma unroll
          for (int t = 0; t < kTiles; ++t) {
            xpu::mbarrier_arrive_expect(&full[s][t], Query::kBytes);
            Query::load(tile(stages, i, t), *maps[t], head * Query::kD, row, &full[s][t]);
          }
          walk.next();
        }
      }
      xpu::sync_warp();
      const int rows = passing[s].rows;
      if (rows == 0) break;
      const float* from = stats + std::int64_t{passing[s].head} * query_rows + passing[s].row;
#pragma unroll 1
      for (int c = 0; c < kColumns; ++c) {
        for (int r = lane; r < kRows; r += 32) {
          statistics[s][c][r] = r < rows ? from[r] : c == 0 ? kInf : 0.0f;
        }
        from += std::int64_t{heads} * query_rows;
      }
      xpu::mbarrier_arrive(&statistics_full[s]);
    }
  }

  /// Where tile `tile` of stage i lies.
  __device__ static bf16* tile(bf16* stages, int i, int tile) {
    return stages + (i % kStages * kTiles + tile) * Query::kSize;
  }
  /// Once tile 0 of stage i has arrived.
  __device__ const PassingQueries& at(int i) const { return passing[i % kStages]; }
  __device__ float* column(int i, int c) { return statistics[i % kStages][c]; }

  __device__ void await_tile(int i, int tile) {
    xpu::mbarrier_wait(&full[i % kStages][tile], phase(i));
  }
  __device__ void await_statistics(int i) {
    xpu::mbarrier_wait(&statistics_full[i % kStages], phase(i));
  }
  /// Every warp of the consumers calls it when it has used the stage.
  __device__ void release(int i) {
    xpu::sync_warp();
    if (threadIdx.x % 32 == 0) xpu::mbarrier_arrive(&empty[i % kStages]);
  }

 private:
  __device__ static int phase(int i) { return i / kStages & 1; }
};

}  // namespace lh::kernels::softmax_sm90
