#include "train/sampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/error.h"

namespace lh {

void check_sampling(const SamplingOptions& options) {
  if (!(options.temperature >= 0 && std::isfinite(options.temperature)))
    fail<ConfigError>("temperature: expected a number >= 0, got {}", options.temperature);
  if (options.top_k < 0) fail<ConfigError>("top-k: expected >= 0, got {}", options.top_k);
  if (!(options.top_p > 0 && options.top_p <= 1))
    fail<ConfigError>("top-p: expected a number in (0, 1], got {}", options.top_p);
}

int32_t sample_token(std::span<const float> logits, const SamplingOptions& options,
                     Philox& random) {
  for (size_t i = 0; i < logits.size(); ++i)
    if (std::isnan(logits[i])) fail<NonFiniteError>("logit {} is NaN", i);
  if (options.temperature == 0)
    return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());

  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto likelier = [&](int32_t a, int32_t b) {
    return logits[static_cast<size_t>(a)] != logits[static_cast<size_t>(b)]
               ? logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)]
               : a < b;
  };
  size_t kept = order.size();
  if (options.top_k > 0) kept = std::min(kept, static_cast<size_t>(options.top_k));
  if (kept < order.size() || options.top_p < 1)
    std::partial_sort(order.begin(), order.begin() + static_cast<int64_t>(kept), order.end(),
                      likelier);

  const double top = *std::max_element(logits.begin(), logits.end());
  std::vector<double> weights(kept);
  for (size_t i = 0; i < kept; ++i)
    weights[i] = std::exp((logits[static_cast<size_t>(order[i])] - top) / options.temperature);
  double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  if (options.top_p < 1) {
    double sum = 0;
    size_t enough = 0;
    while (enough < kept && sum < options.top_p * total) sum += weights[enough++];
    kept = enough;
    total = sum;
  }
  double rest = random.uniform() * total;
  for (size_t i = 0; i < kept; ++i) {
    rest -= weights[i];
    if (rest < 0) return order[i];
  }
  return order[kept - 1];
}

}  // namespace lh
