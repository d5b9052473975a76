#include "tokenizer/merge_learner.h"

#include <algorithm>
#include <queue>
#include <unordered_map>
#include <unordered_set>

#include "base/error.h"
#include "tokenizer/byte_level.h"

namespace lh {
namespace {

constexpr int32_t kNone = -1;
constexpr int64_t kProgressEvery = 256;

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

struct KeyHash {
  size_t operator()(uint64_t key) const {
    key ^= key >> 32;
    key *= 0x9E3779B97F4A7C15ull;
    return key ^ key >> 29;
  }
};

/// A pair of ids: how often it occurs, and where (some places may have changed since).
struct Pair {
  int64_t count = 0;
  std::vector<uint32_t> places;
};

/// One entry of the queue. Its count may be out of date; it is checked when it comes up.
struct Candidate {
  int64_t count;
  uint64_t key;
  bool operator<(const Candidate& other) const {
    return count != other.count ? count < other.count : key > other.key;
  }
};

/// All words as one row of symbols, linked to their neighbours within the word.
class Learner {
 public:
  Learner(const std::vector<WordCount>& words, const LearnOptions& options);
  LearnedVocabulary run(const std::function<void(int64_t, int64_t)>& progress);

 private:
  void add_word(const WordCount& word, const std::vector<int32_t>& id_of_byte);
  int32_t token_of(int32_t left, int32_t right);
  void merge_everywhere(int32_t left, int32_t right, int32_t merged);
  void change(int32_t left, int32_t right, int64_t by) {
    pairs_[pair_key(left, right)].count += by;
  }
  void appear(int32_t left, int32_t right, uint32_t place, int64_t count);

  const LearnOptions& options_;
  LearnedVocabulary learned_;
  std::unordered_map<std::string, int32_t> id_of_;
  std::unordered_set<std::string> forbidden_;  // byte strings that read as special tokens
  std::vector<int32_t> symbols_;               // kNone: merged into a symbol to the left
  std::vector<uint32_t> next_, previous_;
  std::vector<uint32_t> word_of_;
  std::vector<int64_t> word_count_;
  std::unordered_map<uint64_t, Pair, KeyHash> pairs_;
  std::priority_queue<Candidate> queue_;
  std::vector<uint64_t> appeared_;  // pairs that the current merge brought about
};

// No neighbour: the ends of a word.
constexpr uint32_t kEnd = UINT32_MAX;

Learner::Learner(const std::vector<WordCount>& words, const LearnOptions& options)
    : options_(options) {
  const auto add_token = [&](std::string token) {
    id_of_.emplace(token, static_cast<int32_t>(learned_.tokens.size()));
    learned_.tokens.push_back(std::move(token));
  };
  learned_.tokens = options.special_tokens;  // not in id_of_: no merge makes them
  for (const std::string& special : options.special_tokens)
    if (auto bytes = alphabet_to_bytes(special)) forbidden_.insert(std::move(*bytes));
  std::vector<int32_t> id_of_byte(256);
  for (const uint8_t byte : byte_alphabet()) {
    const std::string token(1, static_cast<char>(byte));
    id_of_byte[byte] = static_cast<int32_t>(learned_.tokens.size());
    add_token(token);
  }
  size_t total = 0;
  for (const WordCount& word : words) total += word.bytes.size();
  if (total >= kEnd)
    fail<Error>(
        "[tokenizer] the distinct words of the training text have {} bytes; at most {} can "
        "be trained on: give less text",
        total, kEnd - 1);
  symbols_.reserve(total);
  next_.reserve(total);
  previous_.reserve(total);
  word_of_.reserve(total);
  for (const WordCount& word : words) add_word(word, id_of_byte);
  for (const auto& [key, pair] : pairs_) queue_.push({pair.count, key});
}

void Learner::add_word(const WordCount& word, const std::vector<int32_t>& id_of_byte) {
  const auto begin = static_cast<uint32_t>(symbols_.size());
  const auto end = begin + static_cast<uint32_t>(word.bytes.size());
  const auto index = static_cast<uint32_t>(word_count_.size());
  word_count_.push_back(word.count);
  for (uint32_t at = begin; at < end; ++at) {
    symbols_.push_back(id_of_byte[static_cast<uint8_t>(word.bytes[at - begin])]);
    previous_.push_back(at == begin ? kEnd : at - 1);
    next_.push_back(at + 1 == end ? kEnd : at + 1);
    word_of_.push_back(index);
    if (at == begin) continue;
    Pair& pair = pairs_[pair_key(symbols_[at - 1], symbols_[at])];
    pair.count += word.count;
    pair.places.push_back(at - 1);
  }
}

/// The id of the joined token, kNone for a forbidden one. Two different merges may make the same.
int32_t Learner::token_of(int32_t left, int32_t right) {
  std::string token =
      learned_.tokens[static_cast<size_t>(left)] + learned_.tokens[static_cast<size_t>(right)];
  if (forbidden_.contains(token)) return kNone;
  const auto [known, fresh] = id_of_.emplace(token, static_cast<int32_t>(learned_.tokens.size()));
  if (fresh) learned_.tokens.push_back(std::move(token));
  return known->second;
}

void Learner::appear(int32_t left, int32_t right, uint32_t place, int64_t count) {
  const uint64_t key = pair_key(left, right);
  Pair& pair = pairs_[key];
  pair.count += count;
  pair.places.push_back(place);
  appeared_.push_back(key);
}

void Learner::merge_everywhere(int32_t left, int32_t right, int32_t merged) {
  // Counts of the pair itself are left as they are: it can't come up again unless a later merge
  // makes one of its tokens anew, and the peers that define the result count like this too.
  std::vector<uint32_t> places = std::move(pairs_[pair_key(left, right)].places);
  pairs_[pair_key(left, right)].places.clear();
  // Overlapping pairs (aaa) merge from the left.
  if (!std::is_sorted(places.begin(), places.end())) std::sort(places.begin(), places.end());
  appeared_.clear();
  for (const uint32_t at : places) {
    if (symbols_[at] != left) continue;
    const uint32_t gone = next_[at];
    if (gone == kEnd || symbols_[gone] != right) continue;
    const int64_t count = word_count_[word_of_[at]];
    const uint32_t before = previous_[at], after = next_[gone];
    symbols_[at] = merged;
    symbols_[gone] = kNone;
    next_[at] = after;
    if (after != kEnd) previous_[after] = at;
    if (before != kEnd) {
      change(symbols_[before], left, -count);
      appear(symbols_[before], merged, before, count);
    }
    if (after != kEnd) {
      change(right, symbols_[after], -count);
      appear(merged, symbols_[after], at, count);
    }
  }
  std::sort(appeared_.begin(), appeared_.end());
  appeared_.erase(std::unique(appeared_.begin(), appeared_.end()), appeared_.end());
  for (const uint64_t key : appeared_)
    if (const int64_t count = pairs_[key].count; count > 0) queue_.push({count, key});
}

LearnedVocabulary Learner::run(const std::function<void(int64_t, int64_t)>& progress) {
  // A pair that is merged a second time takes its later rank.
  std::unordered_map<uint64_t, size_t, KeyHash> rank_of;
  std::vector<uint64_t> keys;
  const auto learned = [&] { return static_cast<int64_t>(learned_.tokens.size()); };
  while (learned() < options_.vocab_size && !queue_.empty()) {
    Candidate top = queue_.top();
    queue_.pop();
    if (const int64_t now = pairs_[top.key].count; now != top.count) {
      top.count = now;
      if (now > 0) queue_.push(top);
      continue;
    }
    if (top.count < std::max<int64_t>(1, options_.min_frequency)) break;
    const auto left = static_cast<int32_t>(top.key >> 32);
    const auto right = static_cast<int32_t>(static_cast<uint32_t>(top.key));
    if (pairs_[top.key].places.empty()) continue;  // a second entry of a pair merged just now
    const int32_t merged = token_of(left, right);
    if (merged == kNone) continue;
    rank_of[top.key] = keys.size();
    keys.push_back(top.key);
    merge_everywhere(left, right, merged);
    if (progress && learned() % kProgressEvery == 0) progress(learned(), options_.vocab_size);
  }
  for (size_t rank = 0; rank < keys.size(); ++rank)
    if (rank_of[keys[rank]] == rank)
      learned_.merges.emplace_back(static_cast<int32_t>(keys[rank] >> 32),
                                   static_cast<int32_t>(static_cast<uint32_t>(keys[rank])));
  if (progress) progress(learned(), learned());
  return std::move(learned_);
}

}  // namespace

LearnedVocabulary learn_merges(const std::vector<WordCount>& words, const LearnOptions& options,
                               const std::function<void(int64_t, int64_t)>& progress) {
  return Learner(words, options).run(progress);
}

}  // namespace lh
