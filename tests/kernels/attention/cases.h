// The shapes and masks every attention kernel is tested on.
#pragma once
#include <string>
#include <vector>

#include "kernels/attention/reference.h"

namespace lh::test {

struct NamedCase {
  std::string name;
  AttentionCase shape;
  bool bias = false;
  int gap = 0;  // elements between rows
};

/// Documents one after another, each its own segment.
inline AttentionCase packed(const std::vector<int>& lengths, int heads = 2, int kv_heads = 1,
                            int head_dim = 64, int value_dim = 64,
                            kernels::AttentionMask mask = {}) {
  AttentionCase c;
  for (const int length : lengths) {
    c.segments.push_back({c.nq, length, c.nq, length, 0});
    c.nq += length;
  }
  c.nk = c.nq;
  c.heads = heads;
  c.kv_heads = kv_heads;
  c.head_dim = head_dim;
  c.value_dim = value_dim;
  c.mask = mask;
  c.scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  return c;
}

/// Too many pairs to emulate in every mode.
inline bool is_slow(const AttentionCase& c) {
  return std::int64_t{c.nq} * c.nk * c.heads > 25000;
}

inline kernels::AttentionMask windowed(int window, int sinks = 0, int bias_window = 0) {
  return {window, sinks, true, bias_window};
}

inline std::vector<NamedCase> attention_cases() {
  std::vector<NamedCase> cases;
  cases.push_back({"causal", packed({300}, 1, 1)});
  cases.push_back({"ragged documents", packed({1, 5, 64, 65, 2, 130, 3}, 4, 2), false, 8});
  cases.push_back({"multi-query", packed({70}, 8, 1)});
  cases.push_back({"window below a tile", packed({200}, 1, 1, 64, 64, windowed(10))});
  cases.push_back({"window above the length", packed({90, 40}, 1, 1, 64, 64, windowed(1000))});
  cases.push_back({"window of one", packed({70}, 1, 1, 64, 64, windowed(1))});
  cases.push_back({"sinks", packed({330}, 1, 1, 64, 64, windowed(70, 3))});
  cases.push_back({"sinks above a tile", packed({290}, 1, 1, 64, 64, windowed(20, 70))});
  cases.push_back({"sinks without a window", packed({80}, 1, 1, 64, 64, windowed(0, 4))});
  cases.push_back({"bias", packed({210}, 2, 1), true});
  cases.push_back(
      {"bias beyond a window", packed({150, 30}, 2, 2, 64, 64, windowed(0, 0, 40)), true, 8});
  cases.push_back({"head 128", packed({150}, 2, 1, 128, 128), false, 16});
  cases.push_back({"head 96", packed({100, 33}, 1, 1, 96, 96)});
  cases.push_back({"head 48", packed({70}, 2, 1, 48, 48), false, 8});
  cases.push_back({"head 256", packed({70}, 1, 1, 256, 256)});
  cases.push_back({"wider values", packed({75}, 1, 1, 64, 128)});
  cases.push_back({"narrower values", packed({75}, 1, 1, 192, 128), true});
  cases.push_back({"narrow values", packed({40}, 1, 1, 80, 16)});

  AttentionCase c = packed({200}, 2, 1);
  c.mask.causal = false;
  cases.push_back({"all keys", c});

  // Keys before the queries, queries in the middle of the keys, and rows of neither.
  c = packed({}, 2, 1);
  c.nq = 140;
  c.nk = 330;
  c.segments = {{5, 50, 3, 150, 100}, {60, 70, 160, 150, 40}};
  cases.push_back({"query offsets", c});
  c.mask = windowed(30, 2);
  cases.push_back({"query offsets, window, sinks", c});

  // Queries before all keys see nothing; a segment without keys, one without queries.
  c = packed({}, 1, 1);
  c.nq = 100;
  c.nk = 90;
  c.segments = {{0, 80, 0, 60, -30}, {80, 10, 60, 0, 0}, {90, 0, 70, 20, 0}};
  cases.push_back({"rows that see nothing", c});

  // Two zig-zag parts of one document over the same keys, and a third that overlaps both.
  c = packed({}, 2, 1);
  c.nq = 120;
  c.nk = 200;
  c.segments = {{0, 40, 0, 60, 20}, {40, 40, 0, 150, 110}, {80, 30, 30, 170, 140}};
  cases.push_back({"shared keys", c});

  // Everything at once.
  c = packed({}, 8, 2, 128, 128, windowed(60, 5, 25));
  c.nq = 150;
  c.nk = 260;
  c.segments = {{0, 1, 0, 1, 0}, {1, 90, 1, 150, 60}, {91, 50, 1, 200, 150}};
  cases.push_back({"everything", c, true, 8});
  return cases;
}

}  // namespace lh::test
