#include "data/mixture.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"

namespace lh {

namespace {

constexpr int64_t kResolution = 1'000'000;  // of shares, and so about the largest period

/// The weights as small integers when they have ratios like 1 : 2 or 0.7 : 0.2 : 0.1, else empty.
std::vector<int64_t> exact_shares(std::span<const double> weights) {
  const double smallest = *std::min_element(weights.begin(), weights.end());
  for (int64_t multiple = 1; multiple <= 1000; ++multiple) {
    std::vector<int64_t> shares;
    double total = 0;
    for (const double weight : weights) {
      const double exact = weight / smallest * static_cast<double>(multiple);
      total += exact;
      if (total > kResolution || std::abs(exact - std::round(exact)) > 1e-9 * exact) break;
      shares.push_back(std::llround(exact));
    }
    if (shares.size() == weights.size()) return shares;
  }
  return {};
}

/// Integer shares of at most about kResolution in all.
std::vector<int64_t> integer_shares(std::span<const double> weights) {
  double total = 0;
  for (const double weight : weights) {
    if (!(weight > 0) || !std::isfinite(weight))
      fail<ConfigError>("data weight {} is not a positive number", weight);
    total += weight;
  }
  std::vector<int64_t> shares = exact_shares(weights);
  if (!shares.empty()) return shares;
  for (const double weight : weights) {
    shares.push_back(std::llround(weight / total * kResolution));
    if (shares.back() == 0)
      fail<ConfigError>("data weight {} is below one millionth of the total {}", weight, total);
  }
  return shares;
}

}  // namespace

Mixture::Mixture(std::span<const double> weights) {
  if (weights.empty()) fail<ConfigError>("no training data: data.train is empty");
  shares_ = integer_shares(weights);
  period_ = std::accumulate(shares_.begin(), shares_.end(), int64_t{0});
  const int64_t n = sources();
  when_.resize(n);
  table_.reserve(period_);

  // At place k, of the sources whose surplus k * share - count has reached 1 / (2n - 2), the one
  // that would exceed 1 - 1 / (2n - 2) first comes next. All in units of 1 / (period * (2n - 2)).
  using Wide = __int128;
  const Wide unit = std::max<int64_t>(2 * n - 2, 1);
  std::vector<int64_t> counts(n, 0);
  for (int64_t k = 1; k <= period_; ++k) {
    int64_t chosen = -1;
    Wide chosen_slack = 0;
    for (int64_t i = 0; i < n; ++i) {
      const Wide surplus = (Wide{shares_[i]} * k - Wide{counts[i]} * period_) * unit;
      if (n > 1 && surplus < period_) continue;
      const Wide slack = period_ * unit - period_ - surplus;
      // slack / share is the time left; compared crosswise to stay in integers.
      if (chosen < 0 || slack * shares_[chosen] < chosen_slack * shares_[i]) {
        chosen = i;
        chosen_slack = slack;
      }
    }
    LH_CHECK(chosen >= 0, "[mixture] no source is due at {} of {}", k, period_);
    table_.push_back({chosen, counts[chosen]++});
    when_[chosen].push_back(k - 1);
  }
}

Mixture::Draw Mixture::operator()(int64_t k) const {
  Draw draw = table_[k % period_];
  draw.index += k / period_ * shares_[draw.source];
  return draw;
}

int64_t Mixture::count(int64_t source, int64_t k) const {
  const std::vector<int64_t>& when = when_[source];
  const int64_t within = std::lower_bound(when.begin(), when.end(), k % period_) - when.begin();
  return k / period_ * shares_[source] + within;
}

double Mixture::share(int64_t source) const {
  return static_cast<double>(shares_[source]) / static_cast<double>(period_);
}

}  // namespace lh
