// Byte-pair encoding of one piece of text (Sennrich et al. 2016; on bytes as in Radford et al.
// 2019): start from single bytes and merge the adjacent pair of lowest rank, the leftmost first,
// until no adjacent pair has a rank.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tokenizer/word_cache.h"

namespace lh {

struct BpeMerge {
  int32_t left;
  int32_t right;
  int32_t merged;
};

/// Maps a pair of ids to the rank of its merge and the id it becomes. Open addressing.
class MergeTable {
 public:
  static constexpr int32_t kNoRank = INT32_MAX;
  struct Entry {
    int32_t rank = kNoRank;
    int32_t merged = -1;
  };

  /// The rank is the index; of two equal pairs the later one counts, as in other readers.
  explicit MergeTable(std::span<const BpeMerge> merges);

  Entry find(int32_t left, int32_t right) const {
    const uint64_t key = key_of(left, right);
    for (size_t at = slot_of(key);; at = (at + 1) & mask_) {
      if (slots_[at].key == key) return slots_[at].entry;
      if (slots_[at].key == kEmpty) return {};
    }
  }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  struct Slot {
    uint64_t key = kEmpty;
    Entry entry;
  };
  static uint64_t key_of(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  size_t slot_of(uint64_t key) const { return (key * 0x9E3779B97F4A7C15ull) >> shift_; }

  std::vector<Slot> slots_;
  size_t mask_ = 0;
  int shift_ = 0;
};

class BpeModel {
 public:
  struct Parts {
    std::array<int32_t, 256> byte_ids;  // -1: the byte is not in the vocabulary
    std::vector<BpeMerge> merges;
    int32_t unknown_id = -1;  // stands for a byte that is not in the vocabulary; -1: it is dropped
    bool fuse_unknown = false;  // a run of unknown bytes gives one id
    /// Words that are one token whatever the merges say (ignore_merges); usually empty.
    std::unordered_map<std::string, int32_t> whole_words;
  };

  /// Buffers of one encoding thread.
  struct Workspace {
    WordCache cache;
    std::vector<int32_t> ids, ranks, merged, next, previous;
    std::vector<uint64_t> queue;
  };

  explicit BpeModel(Parts parts);

  /// Appends the ids of one piece. Time n log n in its length.
  void encode(std::string_view piece, Workspace& workspace, std::vector<int32_t>& out) const;

 private:
  /// Fills workspace.ids with one id per byte.
  void start(std::string_view piece, Workspace& workspace) const;
  void merge_short(Workspace& workspace) const;
  void merge_long(Workspace& workspace) const;

  Parts parts_;
  MergeTable table_;
};

}  // namespace lh
