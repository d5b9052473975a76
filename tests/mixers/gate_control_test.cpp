// Gates that were not learned: as many as learned ones, elsewhere.
#include "mixers/gate_control.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "base/philox.h"

namespace {

using namespace lh;
using Kind = GateControl::Kind;

constexpr int64_t kHeads = 3, kWindow = 10;

/// Documents of 5 rows (no key ever leaves the window), 1010 and 2010.
std::vector<AttentionSegment> documents() {
  return {{0, 5, 0, 5, 0}, {5, 1010, 5, 1010, 0}, {1015, 2010, 1015, 2010, 0}};
}

/// Head g keeps a tenth, half and nine tenths, the first half of each document more than the other.
std::vector<uint8_t> learned() {
  std::vector<uint8_t> bits(3025 * kHeads);
  Philox random(1);
  for (size_t i = 0; i < bits.size(); ++i) {
    const double share = std::vector{0.1, 0.5, 0.9}[i % kHeads];
    bits[i] = random.uniform() < share ? 1 : 0;
  }
  return bits;
}

int64_t kept(const std::vector<uint8_t>& bits, const AttentionSegment& document, int64_t g) {
  int64_t sum = 0;
  for (int64_t i = 0; i < document.key_length - kWindow; ++i)
    sum += bits[static_cast<size_t>((document.key_begin + i) * kHeads + g)];
  return sum;
}

MixerFigure density_of(const std::vector<uint8_t>& bits) {
  MixerReport report;
  auto& shares = report.means("kv_density", "m", kHeads);
  for (const AttentionSegment& document : documents())
    for (int64_t g = 0; g < kHeads; ++g) {
      shares[static_cast<size_t>(g)].sum += static_cast<double>(kept(bits, document, g));
      shares[static_cast<size_t>(g)].weight +=
          static_cast<double>(std::max<int64_t>(0, document.key_length - kWindow));
    }
  return report.figure("kv_density");
}

std::vector<uint8_t> controlled(Kind kind, uint64_t seed = 1) {
  std::vector<uint8_t> bits = learned();
  GateControl::matching(kind, density_of(bits), seed).apply("m", documents(), kWindow, kHeads, bits);
  return bits;
}

TEST_CASE("shuffled gates keep as many keys of every head and document, but others") {
  const auto before = learned(), after = controlled(Kind::kShuffled);
  for (const AttentionSegment& document : documents())
    for (int64_t g = 0; g < kHeads; ++g)
      CHECK(kept(after, document, g) == kept(before, document, g));
  // Of two independent choices of a half of the keys, a half agrees.
  int64_t same = 0;
  for (int64_t i = 0; i < 2000; ++i) {
    const auto at = static_cast<size_t>((1015 + i) * kHeads + 1);
    same += before[at] == after[at] ? 1 : 0;
  }
  CHECK(std::abs(static_cast<double>(same) - 1000) < 4 * std::sqrt(2000 * 0.25));
  CHECK(after == controlled(Kind::kShuffled));
  CHECK(after != controlled(Kind::kShuffled, 2));
}

TEST_CASE("random gates keep a head's share") {
  const auto before = learned(), after = controlled(Kind::kRandom);
  for (int64_t g = 0; g < kHeads; ++g) {
    const double share = density_of(before).mixers.at("m")[static_cast<size_t>(g)].value();
    const double got = density_of(after).mixers.at("m")[static_cast<size_t>(g)].value();
    CHECK(std::abs(got - share) < 4 * std::sqrt(share * (1 - share) / 3000));
  }
}

TEST_CASE("constant gates open the densest heads, as many as come nearest to the density") {
  const auto after = controlled(Kind::kConstant);  // half of three heads: 1.5, so two
  const auto counts = density_of(after).mixers.at("m");
  CHECK(counts[0].value() == 0);
  CHECK(counts[1].value() == 1);
  CHECK(counts[2].value() == 1);
}

TEST_CASE("keys that no query has outside its window keep their gates") {
  const auto before = learned();
  for (const Kind kind : {Kind::kShuffled, Kind::kRandom, Kind::kConstant}) {
    const auto after = controlled(kind);
    for (const AttentionSegment& document : documents())
      for (int64_t i = std::max<int64_t>(0, document.key_length - kWindow); i < document.key_length;
           ++i)
        for (int64_t g = 0; g < kHeads; ++g) {
          const auto at = static_cast<size_t>((document.key_begin + i) * kHeads + g);
          CHECK(after[at] == before[at]);
        }
  }
}

TEST_CASE("heads are ranked by density over all layers, equal ones in the order of layers") {
  MixerFigure density;
  density.mixers["layers.9"] = {{1, 10}, {5, 10}};
  density.mixers["layers.10"] = {{9, 10}, {1, 10}};
  const auto heads = heads_by_density(density);
  REQUIRE(heads.size() == 4);
  const auto is = [&](size_t i, const char* mixer, int64_t head) {
    CHECK(heads[i].mixer == mixer);
    CHECK(heads[i].head == head);
  };
  is(0, "layers.10", 0);
  is(1, "layers.9", 1);
  is(2, "layers.9", 0);
  is(3, "layers.10", 1);
}

}  // namespace
