#include "tokenizer/bpe_model.h"

#include <algorithm>
#include <bit>
#include <functional>

#include "base/error.h"

namespace lh {
namespace {

// Up to this many symbols a scan for the lowest rank beats a queue.
constexpr size_t kShortPiece = 64;
// Buffers of a longer piece are given back at once: 28 bytes per byte of text.
constexpr size_t kKeepBuffers = size_t{1} << 20;

}  // namespace

MergeTable::MergeTable(std::span<const BpeMerge> merges) {
  const size_t size = std::bit_ceil(std::max<size_t>(16, merges.size() * 2));
  slots_.resize(size);
  mask_ = size - 1;
  shift_ = 64 - std::countr_zero(size);
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const uint64_t key = key_of(merges[rank].left, merges[rank].right);
    size_t at = slot_of(key);
    while (slots_[at].key != kEmpty && slots_[at].key != key) at = (at + 1) & mask_;
    slots_[at] = {key, {static_cast<int32_t>(rank), merges[rank].merged}};
  }
}

BpeModel::BpeModel(Parts parts) : parts_(std::move(parts)), table_(parts_.merges) {
  parts_.merges = {};  // the table holds them
}

void BpeModel::encode(std::string_view piece, Workspace& workspace,
                      std::vector<int32_t>& out) const {
  const bool cacheable = piece.size() <= WordCache::kMaxWordBytes;
  if (cacheable) {
    const std::span<const int32_t> known = workspace.cache.find(piece);
    if (!known.empty()) {
      out.insert(out.end(), known.begin(), known.end());
      return;
    }
  }
  std::vector<int32_t>& ids = workspace.ids;
  const auto whole = parts_.whole_words.empty() ? parts_.whole_words.end()
                                                : parts_.whole_words.find(std::string(piece));
  if (whole != parts_.whole_words.end()) {
    ids.assign(1, whole->second);
  } else {
    start(piece, workspace);
    ids.size() <= kShortPiece ? merge_short(workspace) : merge_long(workspace);
  }
  out.insert(out.end(), ids.begin(), ids.end());
  if (cacheable) workspace.cache.put(piece, ids);
}

void BpeModel::start(std::string_view piece, Workspace& workspace) const {
  std::vector<int32_t>& ids = workspace.ids;
  ids.clear();
  bool unknown_before = false;
  for (const char byte : piece) {
    const int32_t id = parts_.byte_ids[static_cast<uint8_t>(byte)];
    if (id >= 0) {
      ids.push_back(id);
    } else if (parts_.unknown_id >= 0 && !(parts_.fuse_unknown && unknown_before)) {
      ids.push_back(parts_.unknown_id);
    }
    unknown_before = id < 0;
  }
}

void BpeModel::merge_short(Workspace& workspace) const {
  std::vector<int32_t>& ids = workspace.ids;
  size_t count = ids.size();
  int32_t ranks[kShortPiece];  // of the pair that starts here
  int32_t merged[kShortPiece];
  const auto look_up = [&](size_t i) {
    const MergeTable::Entry entry = table_.find(ids[i], ids[i + 1]);
    ranks[i] = entry.rank;
    merged[i] = entry.merged;
  };
  for (size_t i = 0; i + 1 < count; ++i) look_up(i);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i)
      if (ranks[i] < ranks[best]) best = i;
    if (ranks[best] == MergeTable::kNoRank) break;
    ids[best] = merged[best];
    --count;
    for (size_t i = best + 1; i < count; ++i) {
      ids[i] = ids[i + 1];
      ranks[i] = ranks[i + 1];
      merged[i] = merged[i + 1];
    }
    if (best > 0) look_up(best - 1);
    if (best + 1 < count) look_up(best);
  }
  ids.resize(count);
}

void BpeModel::merge_long(Workspace& workspace) const {
  std::vector<int32_t>& ids = workspace.ids;
  const size_t count = ids.size();
  LH_CHECK(count < static_cast<size_t>(INT32_MAX), "[tokenizer] a piece of {} bytes is too long",
           count);
  const auto n = static_cast<int32_t>(count);
  std::vector<int32_t>& ranks = workspace.ranks;
  std::vector<int32_t>& merged = workspace.merged;
  std::vector<int32_t>& next = workspace.next;
  std::vector<int32_t>& previous = workspace.previous;
  std::vector<uint64_t>& queue = workspace.queue;
  ranks.assign(count, MergeTable::kNoRank);
  merged.resize(count);
  next.resize(count);
  previous.resize(count);
  queue.clear();

  // The queue orders by (rank, position). An entry whose rank is no longer the rank at its
  // position is stale and skipped.
  const auto entry_of = [&](int32_t at) {
    return static_cast<uint64_t>(ranks[at]) << 32 | static_cast<uint32_t>(at);
  };
  const auto look_up = [&](int32_t at) {
    ranks[at] = MergeTable::kNoRank;
    if (next[at] == n) return false;
    const MergeTable::Entry entry = table_.find(ids[at], ids[next[at]]);
    ranks[at] = entry.rank;
    merged[at] = entry.merged;
    return entry.rank != MergeTable::kNoRank;
  };
  for (int32_t i = 0; i < n; ++i) {
    next[i] = i + 1;
    previous[i] = i - 1;
  }
  for (int32_t i = 0; i < n; ++i)
    if (look_up(i)) queue.push_back(entry_of(i));
  const std::greater<> later;
  std::make_heap(queue.begin(), queue.end(), later);
  while (!queue.empty()) {
    std::pop_heap(queue.begin(), queue.end(), later);
    const uint64_t top = queue.back();
    queue.pop_back();
    const auto at = static_cast<int32_t>(static_cast<uint32_t>(top));
    if (ranks[at] != static_cast<int32_t>(top >> 32)) continue;
    const int32_t gone = next[at];
    ids[at] = merged[at];
    ids[gone] = -1;
    ranks[gone] = MergeTable::kNoRank;
    next[at] = next[gone];
    if (next[at] < n) previous[next[at]] = at;
    for (const int32_t changed : {at, previous[at]}) {
      if (changed < 0 || !look_up(changed)) continue;
      queue.push_back(entry_of(changed));
      std::push_heap(queue.begin(), queue.end(), later);
    }
  }
  std::erase(ids, -1);
  if (count > kKeepBuffers) {
    for (std::vector<int32_t>* buffer : {&ranks, &merged, &next, &previous})
      std::vector<int32_t>().swap(*buffer);
    std::vector<uint64_t>().swap(queue);
  }
}

}  // namespace lh
