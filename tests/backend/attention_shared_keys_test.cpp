// The gradient of a bias per key where several segments read the same keys, as the processes of a context-parallel
// group do: against central differences, one dense formula over all queries, and the undivided document.
#include <doctest/doctest.h>

#include "backend/attention_reference.h"

namespace {

using namespace lh;
using namespace lh::test;

constexpr int64_t kRows = 70, kHeads = 4, kKvHeads = 2, kD = 8;

/// The queries of some positions of one document, over all of its keys.
struct Part {
  std::vector<int64_t> positions;  // of each query row
  AttentionCase c;
  AttentionArrays a;

  Part(const AttentionArrays& whole, const AttentionMask& mask,
       const std::vector<std::pair<int64_t, int64_t>>& runs) {
    c = {0, kRows, kHeads, kKvHeads, kD, kD, {}};
    c.plan.mask = mask;
    c.plan.scale = 0.4;
    a.k = whole.k;
    a.v = whole.v;
    a.bias = whole.bias;
    for (const auto& [begin, end] : runs) {
      c.plan.segments.push_back({c.query_rows, end - begin, 0, end, begin});
      c.query_rows += end - begin;
      for (int64_t position = begin; position < end; ++position) {
        positions.push_back(position);
        for (const auto& [from, to] : {std::pair{&whole.q, &a.q}, {&whole.d_out, &a.d_out}})
          to->insert(to->end(), from->begin() + position * kHeads * kD,
                     from->begin() + (position + 1) * kHeads * kD);
      }
    }
  }

  std::vector<double> gradient() const {
    AttentionTensors t(c, a, DType::kF64);
    t.forward(c.plan);
    t.backward(c.plan);
    return to_doubles(t.dbias);
  }

  double loss(const std::vector<double>& bias) const {
    AttentionArrays moved = a;
    moved.bias = bias;
    AttentionTensors t(c, moved, DType::kF64);
    t.forward(c.plan);
    const auto out = to_doubles(t.out);
    double sum = 0;
    for (size_t i = 0; i < out.size(); ++i) sum += out[i] * a.d_out[i];
    return sum;
  }

  /// With P the weights of one head, [queries, keys] by position, dP = d_out V^T and B one where the bias counts:
  /// dbias = colsum(B P (dP - rowsum(P dP))), over the query heads of a group.
  std::vector<double> dense_gradient() const {
    std::vector<double> sums(a.bias.size());
    for (size_t row = 0; row < positions.size(); ++row)
      for (int64_t h = 0; h < kHeads; ++h) {
        const int64_t g = h / (kHeads / kKvHeads);
        const auto dot = [&](const std::vector<double>& rows, const std::vector<double>& keys, int64_t j) {
          double sum = 0;
          for (int64_t x = 0; x < kD; ++x)
            sum += rows[(row * kHeads + static_cast<size_t>(h)) * kD + static_cast<size_t>(x)] *
                   keys[static_cast<size_t>((j * kKvHeads + g) * kD + x)];
          return sum;
        };
        std::vector<double> p(kRows), dp(kRows);
        std::vector<bool> counts(kRows);
        double total = 0, mean = 0;
        for (int64_t j = 0; j < kRows; ++j) {
          const auto at = static_cast<size_t>(j);
          counts[at] = positions[row] - j >= c.plan.mask.bias_window;
          if (!sees(c.plan.mask, positions[row], j)) continue;
          p[at] = std::exp(c.plan.scale * dot(a.q, a.k, j) +
                           (counts[at] ? a.bias[static_cast<size_t>(j * kKvHeads + g)] : 0));
          total += p[at];
          dp[at] = dot(a.d_out, a.v, j);
        }
        for (size_t j = 0; j < kRows; ++j) mean += p[j] / total * dp[j];
        for (size_t j = 0; j < kRows; ++j)
          if (counts[j])
            sums[j * kKvHeads + static_cast<size_t>(g)] += p[j] / total * (dp[j] - mean);
      }
    return sums;
  }
};

TEST_CASE("attention's gradient of a bias whose keys several segments read") {
  for (const AttentionMask mask : {AttentionMask{0, 0, 6}, AttentionMask{30, 2, 6}, AttentionMask{0, 0, 0}}) {
    CAPTURE(mask.window);
    CAPTURE(mask.bias_window);
    AttentionCase c = packed_case({kRows}, kHeads, kKvHeads, kD, kD, mask);
    AttentionArrays whole = random_arrays(c, DType::kF64, 3);
    add_random_bias(c, whole, 4);
    // Two processes, each with an early and a late piece (zigzag), and one with everything.
    const Part first(whole, mask, {{0, 17}, {52, 70}}), second(whole, mask, {{17, 35}, {35, 52}}),
        all(whole, mask, {{0, 70}});
    std::vector<double> together(whole.bias.size());
    for (const Part* part : {&first, &second, &all}) {
      const auto got = part->gradient(), dense = part->dense_gradient();
      for (size_t i = 0; i < got.size(); ++i) {
        CHECK(std::abs(got[i] - dense[i]) < 1e-12);
        if (part != &all) together[i] += got[i];
        auto bias = part->a.bias;
        if (std::isinf(bias[i])) continue;  // a closed key has no slope
        const double step = 1e-5;
        bias[i] += step;
        const double above = part->loss(bias);
        bias[i] -= 2 * step;
        CHECK(std::abs(got[i] - (above - part->loss(bias)) / (2 * step)) < 1e-8);
      }
    }
    const auto want = all.gradient();
    for (size_t i = 0; i < want.size(); ++i) CHECK(std::abs(together[i] - want[i]) < 1e-12);
  }
}

}  // namespace
