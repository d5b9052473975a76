// What mixers tell about themselves while a model is evaluated: how many keys a gate keeps, how large a
// correction is. Every number is a ratio of sums, so that batches, heads and processes add up.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace lh {

/// sum / weight over all that was seen.
struct ReportedMean {
  double sum = 0, weight = 0;
  bool root = false;  // sum is one of squares: the number is the root of the ratio

  double value() const;  // 0 when nothing was seen
};

/// Orders the prefixes of mixers by layer: they differ in its number alone, and the longer is larger.
struct ByLayer {
  bool operator()(const std::string& a, const std::string& b) const {
    return a.size() != b.size() ? a.size() < b.size() : a < b;
  }
};

/// One number of all mixers that have it.
struct MixerFigure {
  bool by_head = false;  // otherwise a mixer has one
  /// By the mixer's prefix ("model.layers.3.self_attn"), then by head.
  std::map<std::string, std::vector<ReportedMean>, ByLayer> mixers;

  ReportedMean total() const;
  bool seen() const { return total().weight > 0; }
};

class MixerReport {
 public:
  /// Where a mixer adds to its number `name`.
  ReportedMean& mean(const std::string& name, const std::string& mixer);
  ReportedMean& root_mean_square(const std::string& name, const std::string& mixer);
  /// The same for each of its heads.
  std::vector<ReportedMean>& means(const std::string& name, const std::string& mixer, int64_t heads);

  /// Empty when no mixer has it.
  const MixerFigure& figure(const std::string& name) const;
  const std::map<std::string, MixerFigure>& figures() const { return figures_; }
  /// Every sum and weight in one order, for processes that add theirs.
  std::vector<double*> sums();

 private:
  std::map<std::string, MixerFigure> figures_;
};

}  // namespace lh
