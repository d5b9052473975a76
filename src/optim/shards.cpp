#include "optim/shards.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "optim/param_groups.h"

namespace lh {
namespace {

/// Cuts lie at multiples of this, so that pieces keep the alignment that vector loads want.
constexpr int64_t kCutElements = 4;

/// Multiplications of one Newton-Schulz iteration, up to a factor: X X^T, its square, and their product with X.
double iteration_cost(const Shape& shape) {
  const auto rows = static_cast<double>(std::min(shape[0], shape[1]));
  const auto cols = static_cast<double>(std::max(shape[0], shape[1]));
  return rows * rows * (2 * cols + rows);
}

/// Shares of `amount`, one for each of `held`, that level held + share as far as it goes.
std::vector<double> level(const std::vector<double>& held, double amount) {
  std::vector<double> sorted = held;
  std::sort(sorted.begin(), sorted.end());
  double sum = 0, water = 0;
  for (size_t i = 0; i < sorted.size(); ++i) {
    sum += sorted[i];
    water = (amount + sum) / static_cast<double>(i + 1);  // as if the first i + 1 got all of it
    if (i + 1 == sorted.size() || water <= sorted[i + 1]) break;
  }
  std::vector<double> shares;
  for (const double one : held) shares.push_back(std::max(0.0, water - one));
  return shares;
}

}  // namespace

Shards::Shards(const OptimConfig& config, const ParameterStore& store, int owners)
    : owners_(owners) {
  LH_CHECK(owners >= 1, "[shards] {} owners", owners);
  const std::vector<ParamRule> rules = resolve_param_groups(config, store);
  const auto count = static_cast<size_t>(owners);
  ends_.resize(rules.size());
  std::vector<size_t> whole;
  double cut = 0;  // elements of state that may be cut: AdamW keeps two for each of a parameter
  for (size_t i = 0; i < rules.size(); ++i) {
    if (rules[i].frozen) continue;
    if (rules[i].muon) whole.push_back(i);
    else cut += 2 * static_cast<double>(rules[i].parameter->numel());
  }
  const auto cost = [&](size_t i) { return iteration_cost(rules[i].parameter->shape()); };
  std::stable_sort(whole.begin(), whole.end(),
                   [&](size_t a, size_t b) { return cost(a) > cost(b); });
  std::vector<double> work(count), held(count);
  for (const size_t i : whole) {
    const auto owner =
        static_cast<size_t>(std::min_element(work.begin(), work.end()) - work.begin());
    const int64_t elements = rules[i].parameter->numel();
    work[owner] += cost(i);
    held[owner] += static_cast<double>(elements);
    ends_[i].assign(count, 0);
    std::fill(ends_[i].begin() + static_cast<int64_t>(owner), ends_[i].end(), elements);
  }
  std::vector<double> shares = level(held, cut);
  if (cut == 0) std::fill(shares.begin(), shares.end(), 1.0);  // for frozen parameters' masters
  const double total = std::accumulate(shares.begin(), shares.end(), 0.0);
  for (size_t i = 0; i < rules.size(); ++i) {
    if (!ends_[i].empty()) continue;
    const int64_t elements = rules[i].parameter->numel();
    double before = 0;
    for (const double share : shares) {
      before += share;
      const double at = before / total * static_cast<double>(elements) / kCutElements;
      ends_[i].push_back(std::min(elements, static_cast<int64_t>(std::llround(at)) * kCutElements));
    }
    ends_[i].back() = elements;
  }
}

ShardPart Shards::part(size_t index, int owner) const {
  const std::vector<int64_t>& ends = ends_[index];
  const auto at = static_cast<size_t>(owner);
  return {at == 0 ? 0 : ends[at - 1], ends[at]};
}

std::vector<int64_t> Shards::counts(size_t index) const {
  std::vector<int64_t> all;
  for (int owner = 0; owner < owners_; ++owner) all.push_back(part(index, owner).count());
  return all;
}

Tensor part_of(const Tensor& tensor, const ShardPart& part) {
  if (part.count() == tensor.numel()) return tensor;
  return tensor.reshape({tensor.numel()}).slice(0, part.begin, part.end);
}

}  // namespace lh
