#include "mixers/gate_control.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "base/philox.h"

namespace lh {

std::vector<RankedHead> heads_by_density(const MixerFigure& density) {
  std::vector<RankedHead> heads;
  for (const auto& [mixer, shares] : density.mixers)
    for (size_t g = 0; g < shares.size(); ++g)
      heads.push_back({mixer, static_cast<int64_t>(g), shares[g].value()});
  std::stable_sort(heads.begin(), heads.end(),
                   [](const RankedHead& a, const RankedHead& b) { return a.share > b.share; });
  return heads;
}

GateControl GateControl::matching(Kind kind, const MixerFigure& density, uint64_t seed) {
  GateControl control{kind, seed};
  for (const auto& [mixer, learned] : density.mixers) {
    std::vector<double>& shares = control.shares[mixer];
    for (const ReportedMean& share : learned)
      shares.push_back(kind == Kind::kConstant ? 0 : share.value());
  }
  if (kind != Kind::kConstant) return control;
  const std::vector<RankedHead> heads = heads_by_density(density);
  const auto open =
      std::llround(density.total().value() * static_cast<double>(heads.size()));
  for (int64_t i = 0; i < open; ++i) {
    const RankedHead& head = heads[static_cast<size_t>(i)];
    control.shares[head.mixer][static_cast<size_t>(head.head)] = 1;
  }
  return control;
}

void GateControl::apply(const std::string& mixer, std::span<const AttentionSegment> documents,
                        int64_t window, int64_t kv_heads, std::vector<uint8_t>& bits) const {
  const auto found = shares.find(mixer);
  LH_CHECK(found != shares.end() && static_cast<int64_t>(found->second.size()) == kv_heads,
           "[gate control] no density of {} with {} heads", mixer, kv_heads);
  uint64_t stream = 0;  // of this mixer
  for (const char c : mixer) stream = stream * 1099511628211u + static_cast<uint8_t>(c);
  Philox random(seed, stream);
  for (const AttentionSegment& document : documents)
    for (int64_t g = 0; g < kv_heads; ++g) {
      const int64_t leaving = document.key_length - window;  // later keys are never outside
      const auto bit = [&](int64_t i) -> uint8_t& {
        return bits[static_cast<size_t>((document.key_begin + i) * kv_heads + g)];
      };
      for (int64_t i = 0; i < leaving; ++i) {
        if (kind == Kind::kShuffled)  // Fisher-Yates
          std::swap(bit(i), bit(i + static_cast<int64_t>(
                                        random.below(static_cast<uint64_t>(leaving - i)))));
        else
          bit(i) = random.uniform() < found->second[static_cast<size_t>(g)] ? 1 : 0;
      }
    }
}

}  // namespace lh
