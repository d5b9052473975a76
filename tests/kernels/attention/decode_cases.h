// The batches decode attention is tested on, and their run: a cache of shuffled pages or of rows one
// after another, NaN wherever nothing may be read.
#pragma once
#include <algorithm>
#include <climits>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/attention/cases.h"
#include "kernels/attention/decode.h"
#include "kernels/attention/runner.h"

namespace lh::test {

struct DecodeSequence {
  int tokens = 1, keys = 0;
  int before = 0;  // positions by which the tokens lie before the last keys
};

struct DecodeCase {
  std::string name;
  std::vector<DecodeSequence> sequences;
  int heads = 4, kv_heads = 1, head_dim = 64, value_dim = 64;
  int splits = 1, split_keys = 16;
  int page_size = 0;  // 0: rows one after another
  kernels::AttentionMask mask;
  bool bias = false;
  int gap = 0;  // elements between rows
};

/// The same queries and keys as segments over dense arrays. One row of q before each sequence is in
/// none of them.
inline AttentionCase dense_case(const DecodeCase& c) {
  AttentionCase dense;
  for (const DecodeSequence& s : c.sequences) {
    ++dense.nq;
    dense.segments.push_back(
        {dense.nq, s.tokens, dense.nk, s.keys, s.keys - s.tokens - s.before});
    dense.nq += s.tokens;
    dense.nk += s.keys;
  }
  dense.heads = c.heads;
  dense.kv_heads = c.kv_heads;
  dense.head_dim = c.head_dim;
  dense.value_dim = c.value_dim;
  dense.mask = c.mask;
  dense.scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
  return dense;
}

/// Where the keys of a batch lie.
struct CacheLayout {
  std::vector<int> row_of_key;  // of the dense keys
  std::vector<int> pages;       // [sequences, pages_per_sequence]
  int rows = 0, pages_per_sequence = 0;
};

/// Entries of the table that must not be read, because they lie behind the last key or no query sees
/// their page, hold INT_MAX.
inline CacheLayout cache_layout(const DecodeCase& c, const AttentionCase& dense) {
  CacheLayout layout;
  if (c.page_size == 0) {
    layout.rows = dense.nk;
    for (int j = 0; j < dense.nk; ++j) layout.row_of_key.push_back(j);
    return layout;
  }
  int used = 0;
  for (const auto& s : dense.segments) {
    const int pages = (s.key_length + c.page_size - 1) / c.page_size;
    used += pages;
    layout.pages_per_sequence = std::max(layout.pages_per_sequence, pages + 1);
  }
  std::vector<int> free_pages(static_cast<std::size_t>(used + 2));
  for (int i = 0; i < used + 2; ++i) free_pages[i] = i;
  std::mt19937 random(5);
  std::shuffle(free_pages.begin(), free_pages.end(), random);
  layout.rows = (used + 2) * c.page_size;
  for (const auto& s : dense.segments) {
    std::vector<int> table(static_cast<std::size_t>(layout.pages_per_sequence), INT_MAX);
    for (int j = 0; j < s.key_length; ++j) {
      if (j % c.page_size == 0) {
        table[j / c.page_size] = free_pages.back();
        free_pages.pop_back();
      }
      layout.row_of_key.push_back(table[j / c.page_size] * c.page_size + j % c.page_size);
    }
    for (int page = 0; page * c.page_size < s.key_length; ++page) {
      bool seen = false;
      for (int j = page * c.page_size; j < (page + 1) * c.page_size; ++j) {
        for (int i = 0; i < s.query_length; ++i) {
          seen |= kernels::visible(c.mask, s.query_offset + i, j, s.key_length);
        }
      }
      if (!seen) table[page] = INT_MAX;
    }
    layout.pages.insert(layout.pages.end(), table.begin(), table.end());
  }
  return layout;
}

/// Row i of `dense` becomes row rows[i] of the result; the others are NaN.
template <class T>
std::vector<T> scattered(const std::vector<T>& dense, int width, const std::vector<int>& rows,
                         int count) {
  std::vector<T> out(static_cast<std::size_t>(count) * width);
  std::memset(out.data(), 0xff, out.size() * sizeof(T));
  for (std::size_t i = 0; i < rows.size(); ++i) {
    std::copy_n(dense.begin() + i * width, width, out.begin() + std::int64_t{rows[i]} * width);
  }
  return out;
}

template <class T>
class DecodeRun {
 public:
  DecodeRun(const DecodeCase& c, unsigned seed)
      : case_(c),
        dense(dense_case(c)),
        layout_(cache_layout(c, dense)),
        q_(random_values<T>(std::size_t(dense.nq) * c.heads * c.head_dim, seed)),
        k_(random_values<T>(std::size_t(dense.nk) * c.kv_heads * c.head_dim, seed + 1)),
        v_(random_values<T>(std::size_t(dense.nk) * c.kv_heads * c.value_dim, seed + 2)),
        bias_(random_values<float>(std::size_t(dense.nk) * c.kv_heads, seed + 3)),
        q(q_, c.heads * c.head_dim, c.gap),
        k(scattered(k_, c.kv_heads * c.head_dim, layout_.row_of_key, layout_.rows),
          c.kv_heads * c.head_dim, c.gap),
        v(scattered(v_, c.kv_heads * c.value_dim, layout_.row_of_key, layout_.rows),
          c.kv_heads * c.value_dim, 2 * c.gap),
        bias(scattered(bias_, c.kv_heads, layout_.row_of_key, layout_.rows)),
        pages(layout_.pages),
        segments(segments_of(c, dense)),
        out(dense.nq, c.heads * c.value_dim, c.gap),
        partial(dense.nq, c.heads * c.value_dim),
        lse(std::size_t(dense.nq) * c.heads),
        workspace(kernels::attention_decode_workspace(params(false))),
        counters(std::vector<int>(kernels::attention_decode_counters(params(false)), 0)) {}

  AttentionInputs inputs() const {
    AttentionInputs in{to_double(q_), to_double(k_), to_double(v_), {}, {}, {}};
    if (case_.bias) in.bias = to_double(bias_);
    return in;
  }

  void run(bool to_partial = false) {
    auto p = params(to_partial);
    p.workspace = workspace.get();
    p.counters = counters.get();
    kernels::attention_decode(p, nullptr);
  }

  kernels::AttentionDecodeParams<T> params(bool to_partial) const {
    kernels::AttentionDecodeParams<T> p;
    p.q = q.get();
    p.k = k.get();
    p.v = v.get();
    p.bias = case_.bias ? bias.get() : nullptr;
    p.out = to_partial ? nullptr : out.get();
    p.partial = to_partial ? partial.get() : nullptr;
    p.lse = lse.get();
    p.q_stride = q.stride;
    p.k_stride = k.stride;
    p.v_stride = v.stride;
    p.out_stride = to_partial ? partial.stride : out.stride;
    p.heads = case_.heads;
    p.kv_heads = case_.kv_heads;
    p.head_dim = case_.head_dim;
    p.value_dim = case_.value_dim;
    p.scale = dense.scale;
    p.mask = case_.mask;
    p.segments = segments.get();
    p.pages = case_.page_size > 0 ? pages.get() : nullptr;
    p.sequences = static_cast<int>(case_.sequences.size());
    for (const DecodeSequence& s : case_.sequences) p.tokens = std::max(p.tokens, s.tokens);
    p.page_size = case_.page_size;
    p.pages_per_sequence = layout_.pages_per_sequence;
    p.splits = case_.splits;
    p.split_keys = case_.split_keys;
    return p;
  }

 private:
  /// With a page table key_begin is not used; it holds what would leave the cache.
  static std::vector<kernels::AttentionSegment> segments_of(const DecodeCase& c,
                                                            const AttentionCase& dense) {
    auto segments = dense.segments;
    for (auto& s : segments) {
      if (c.page_size > 0) s.key_begin = 1 << 28;
    }
    return segments;
  }

  DecodeCase case_;

 public:
  const AttentionCase dense;

 private:
  CacheLayout layout_;
  std::vector<T> q_, k_, v_;
  std::vector<float> bias_;

 public:
  Rows<T> q, k, v;
  Buffer<float> bias;
  Buffer<int> pages;
  Buffer<kernels::AttentionSegment> segments;
  Rows<T> out;
  Rows<float> partial;
  Buffer<float> lse, workspace;
  Buffer<int> counters;
};

inline std::vector<DecodeCase> decode_cases() {
  std::vector<DecodeCase> cases;
  const auto add = [&](const char* name, std::vector<DecodeSequence> sequences) -> DecodeCase& {
    cases.push_back({});
    cases.back().name = name;
    cases.back().sequences = std::move(sequences);
    return cases.back();
  };
  const std::vector<DecodeSequence> ragged = {{1, 1},  {1, 5},   {1, 0},  {1, 16}, {0, 40},
                                              {1, 17}, {1, 330}, {0, 0}, {1, 64}};
  add("one split", {{1, 700}});
  add("ragged lengths", ragged).gap = 8;
  for (const int splits : {2, 7, 64}) {
    DecodeCase& c = add("ragged lengths, splits", ragged);
    c.splits = splits;
    c.kv_heads = 2;
  }
  {
    DecodeCase& c = add("parts of 100 keys", {{1, 520}, {1, 250}, {1, 90}});
    c.splits = 4;
    c.split_keys = 112;
  }
  for (const int page : {16, 32, 128}) {
    DecodeCase& c = add("shuffled pages", ragged);
    c.splits = 3;
    c.page_size = page;
    c.gap = 8;
  }
  for (const int group : {1, 2, 3, 4, 8, 20}) {
    DecodeCase& c = add("group", {{1, 90}, {1, 200}});
    c.kv_heads = 2;
    c.heads = 2 * group;
    c.splits = 3;
  }
  for (const int tokens : {2, 3, 4, 8}) {
    DecodeCase& c = add("several tokens", {{tokens, 150}, {1, 70}, {tokens, tokens}, {2, 33, 7}});
    c.heads = 6;
    c.kv_heads = 2;
    c.splits = 4;
    c.page_size = tokens == 3 ? 32 : 0;
  }
  {
    DecodeCase& c = add("window and sinks", {{1, 400}, {4, 300}, {1, 20}, {3, 129}});
    c.mask = windowed(70, 3);
    c.splits = 5;
    c.page_size = 16;
  }
  {
    DecodeCase& c = add("window of one", {{1, 100}, {2, 65}});
    c.mask = windowed(1);
    c.splits = 2;
    c.page_size = 16;
  }
  {
    DecodeCase& c = add("sinks above a tile", {{4, 300}});
    c.mask = windowed(20, 40);
    c.splits = 3;
    c.page_size = 32;
  }
  {
    DecodeCase& c = add("bias", {{1, 210}, {3, 100}});
    c.bias = true;
    c.splits = 3;
  }
  {
    DecodeCase& c = add("bias beyond a window, pages", {{1, 150}, {2, 90}});
    c.heads = 4;
    c.kv_heads = 2;
    c.bias = true;
    c.mask = windowed(0, 0, 40);
    c.page_size = 16;
  }
  {
    DecodeCase& c = add("all keys", {{4, 100, 50}, {1, 70, 69}});
    c.mask.causal = false;
    c.splits = 2;
  }
  add("queries before the keys", {{1, 40, 60}, {4, 40, 38}}).splits = 2;
  const int dims[][2] = {{128, 128}, {96, 96}, {256, 256}, {192, 128}, {80, 16}, {64, 128}};
  for (const auto& d : dims) {
    DecodeCase& c = add("head sizes", {{1, 300}, {2, 45}});
    c.heads = 2;
    c.head_dim = d[0];
    c.value_dim = d[1];
    c.splits = d[0] == 128 ? 1 : 2;
    c.gap = 16;
  }
  {
    DecodeCase& c = add("everything", {{3, 400}, {0, 0}, {1, 1}, {4, 170, 2}, {2, 260}});
    c.heads = 12;
    c.kv_heads = 2;
    c.head_dim = c.value_dim = 128;
    c.mask = windowed(120, 5, 25);
    c.bias = true;
    c.splits = 6;
    c.page_size = 64;
    c.gap = 8;
  }
  return cases;
}

}  // namespace lh::test
