// The core of BPE training: from words and their counts to the list of merges.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lh {

struct WordCount {
  std::string_view bytes;
  int64_t count;
};

struct LearnedVocabulary {
  std::vector<std::string> tokens;  // by id: special tokens, the 256 bytes, merged tokens
  std::vector<std::pair<int32_t, int32_t>> merges;  // by rank
};

struct LearnOptions {
  int64_t vocab_size;
  int64_t min_frequency;
  std::vector<std::string> special_tokens;
};

/// Repeats: merge the most frequent adjacent pair everywhere, of equals the one with the smaller
/// ids. A pair that would spell a special token is never merged, so text can't produce one. Time is
/// linear in the occurrences of all merged pairs, however long a word is.
LearnedVocabulary learn_merges(const std::vector<WordCount>& words, const LearnOptions& options,
                               const std::function<void(int64_t, int64_t)>& progress);

}  // namespace lh
