// How many parts the keys of a decoding batch are cut into, chosen on the host. Plain C++.
#pragma once
#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/attention/mask.h"

namespace lh::kernels {

/// A sequence with n visible keys is cut into min(splits, ceil(n / split_keys)) equal parts.
struct AttentionDecodeSplit {
  int splits = 1;      // blocks launched per (sequence, kv head); those without a part end at once
  int split_keys = 0;  // a multiple of 16
};

/// Keys of the segment that some query sees, in whole tiles of 16.
inline std::int64_t visible_keys(const AttentionSegment& s, const AttentionMask& mask) {
  if (s.query_length == 0) return 0;
  const int last = s.query_offset + s.query_length - 1;
  return std::int64_t{16} * key_tile_range(mask, s.key_length, s.query_offset, last, 16).count();
}

/// `blocks_per_part`: kv heads times attention_decode_row_tiles. `slots`: blocks the device runs at
/// once (kAttentionDecodeBlocks per multiprocessor). Every part costs its keys and a fixed overhead, and
/// blocks run in waves of `slots`: of the candidates the fastest under that model, of equals the fewest parts.
/// Never more than kMaxSplits, nor parts below kMinKeys of a longer sequence.
inline AttentionDecodeSplit attention_decode_split(std::span<const AttentionSegment> segments,
                                                   const AttentionMask& mask, int blocks_per_part,
                                                   int slots) {
  constexpr std::int64_t kMaxSplits = 128;
  constexpr std::int64_t kMinKeys = 128;   // below it the merge costs more than the keys
  constexpr std::int64_t kOverhead = 128;  // start and end of a block, in keys
  std::vector<std::int64_t> keys;
  for (const AttentionSegment& s : segments) {
    if (s.query_length > 0) keys.push_back(visible_keys(s, mask));
  }
  const std::int64_t longest = keys.empty() ? 0 : *std::max_element(keys.begin(), keys.end());
  const std::int64_t most = std::clamp<std::int64_t>(longest / kMinKeys, 1, kMaxSplits);
  AttentionDecodeSplit best;
  std::int64_t best_cost = -1;
  for (std::int64_t splits = 1; splits <= most; ++splits) {
    const std::int64_t part = std::max<std::int64_t>((longest + splits - 1) / splits, 1);
    const std::int64_t rounded = (part + 15) / 16 * 16;
    std::int64_t parts = 0;
    for (const std::int64_t n : keys) {
      parts += std::clamp<std::int64_t>((n + rounded - 1) / rounded, 1, splits);
    }
    const std::int64_t waves = (parts * blocks_per_part + slots - 1) / std::max(slots, 1);
    const std::int64_t cost = waves * (rounded + kOverhead);
    if (best_cost < 0 || cost < best_cost) {
      best_cost = cost;
      best = {static_cast<int>(splits), static_cast<int>(rounded)};
    }
    if (waves > 1 && parts * blocks_per_part > std::int64_t{8} * slots) break;  // filled 8 times over
  }
  return best;
}

/// Blocks of attention_decode that fit a multiprocessor side by side, at head_dim 128.
constexpr int kAttentionDecodeBlocks = 2;

}  // namespace lh::kernels
