#include "data/draw.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <unordered_map>

#include "base/error.h"

namespace lh {

std::vector<int64_t> draw_distinct(int64_t n, int64_t count, Philox& random) {
  LH_CHECK(count >= 0 && count <= n, "[draw] {} different numbers below {}", count, n);
  // Fisher and Yates over 0..n-1, of which only the places that were swapped are kept.
  std::unordered_map<int64_t, int64_t> swapped;
  const auto at = [&](int64_t place) {
    const auto found = swapped.find(place);
    return found == swapped.end() ? place : found->second;
  };
  std::vector<int64_t> drawn;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t other = i + static_cast<int64_t>(random.below(static_cast<uint64_t>(n - i)));
    drawn.push_back(at(other));
    swapped[other] = at(i);
  }
  return drawn;
}

std::vector<int64_t> draw_weighted(std::span<const double> weights, int64_t count,
                                   Philox& random) {
  LH_CHECK(count >= 0 && count <= static_cast<int64_t>(weights.size()), "[draw] {} of {} weights",
           count, weights.size());
  // The largest of u^(1 / w), u uniform, are such a draw (Efraimidis and Spirakis 2006); in
  // logarithms, which do not underflow.
  std::vector<double> keys;
  for (const double weight : weights) keys.push_back(std::log(1 - random.uniform()) / weight);
  std::vector<int64_t> order(weights.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return keys[static_cast<size_t>(a)] > keys[static_cast<size_t>(b)];
  });
  order.resize(static_cast<size_t>(count));
  std::sort(order.begin(), order.end());
  return order;
}

}  // namespace lh
