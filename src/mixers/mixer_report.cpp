#include "mixers/mixer_report.h"

#include <cmath>

namespace lh {

double ReportedMean::value() const {
  if (weight == 0) return 0;
  return root ? std::sqrt(sum / weight) : sum / weight;
}

ReportedMean MixerFigure::total() const {
  ReportedMean total;
  for (const auto& [mixer, means] : mixers)
    for (const ReportedMean& mean : means) {
      total.sum += mean.sum;
      total.weight += mean.weight;
      total.root = mean.root;
    }
  return total;
}

ReportedMean& MixerReport::mean(const std::string& name, const std::string& mixer) {
  std::vector<ReportedMean>& means = figures_[name].mixers[mixer];
  means.resize(1);
  return means.front();
}

ReportedMean& MixerReport::root_mean_square(const std::string& name, const std::string& mixer) {
  ReportedMean& found = mean(name, mixer);
  found.root = true;
  return found;
}

std::vector<ReportedMean>& MixerReport::means(const std::string& name, const std::string& mixer,
                                              int64_t heads) {
  MixerFigure& figure = figures_[name];
  figure.by_head = true;
  std::vector<ReportedMean>& means = figure.mixers[mixer];
  means.resize(static_cast<size_t>(heads));
  return means;
}

const MixerFigure& MixerReport::figure(const std::string& name) const {
  static const MixerFigure kNone;
  const auto found = figures_.find(name);
  return found == figures_.end() ? kNone : found->second;
}

std::vector<double*> MixerReport::sums() {
  std::vector<double*> all;
  for (auto& [name, figure] : figures_)
    for (auto& [mixer, means] : figure.mixers)
      for (ReportedMean& mean : means) all.insert(all.end(), {&mean.sum, &mean.weight});
  return all;
}

}  // namespace lh
