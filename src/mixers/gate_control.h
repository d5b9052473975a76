// Gates that nothing learned, to compare learned ones with at equal density: what a schedule of
// keys would be worth without knowing which keys matter.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "backend/attention.h"
#include "mixers/mixer_report.h"

namespace lh {

struct GateControl {
  enum class Kind : uint8_t {
    kShuffled,  // each head's gates, given to other keys of the same document
    kRandom,    // every key of a head is kept by chance, as often as the head keeps its own
    kConstant,  // whole heads are open or closed, the densest open
  };
  Kind kind = Kind::kShuffled;
  uint64_t seed = 1;
  /// kRandom: the chance of a key, kConstant: 1 or 0; by mixer, then by kv head.
  std::map<std::string, std::vector<double>> shares = {};

  /// From the density of learned gates. kConstant opens as many heads as come nearest to it.
  static GateControl matching(Kind kind, const MixerFigure& density, uint64_t seed);

  /// Replaces a mixer's gates, [rows, kv_heads] bits, of keys that some query has outside its window.
  void apply(const std::string& mixer, std::span<const AttentionSegment> documents, int64_t window,
             int64_t kv_heads, std::vector<uint8_t>& bits) const;
};

/// A kv head of a layer's mixer and the share of its keys that are kept.
struct RankedHead {
  std::string mixer;
  int64_t head = 0;
  double share = 0;
};
/// All heads, densest first, equal ones in the order of layers.
std::vector<RankedHead> heads_by_density(const MixerFigure& density);

}  // namespace lh
