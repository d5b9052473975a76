// The merge of attention over parts of the keys against the softmax over all of them, in fp64.
#include "kernels/attention/merge.h"

#include <algorithm>
#include <limits>

#include "kernels/support/harness.h"

using namespace lh;
using namespace lh::test;
using xpu::bf16;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

/// Parts of a softmax: scores of keys dealt out to `count` parts, outputs and lse of each in fp64.
struct Parts {
  int count, pairs, d;
  std::vector<double> out, lse;            // [count, pairs, d], [count, pairs]
  std::vector<double> all_out, all_lse;    // over all keys
};

Parts make_parts(int count, int pairs, int d, double score_scale, unsigned seed) {
  Parts p{count, pairs, d, {}, {}, {}, {}};
  p.out.assign(std::size_t(count) * pairs * d, 0);
  p.lse.assign(std::size_t(count) * pairs, -kInf);
  p.all_out.assign(std::size_t(pairs) * d, 0);
  p.all_lse.assign(pairs, -kInf);
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  for (int r = 0; r < pairs; ++r) {
    const int keys = r == 0 ? 0 : 1 + static_cast<int>(random() % 20);  // row 0 sees nothing
    std::vector<double> scores;
    std::vector<int> owner;
    std::vector<std::vector<double>> values;
    for (int j = 0; j < keys; ++j) {
      scores.push_back(score_scale * normal(random));
      owner.push_back(static_cast<int>(random() % count));
      values.emplace_back();
      for (int x = 0; x < d; ++x) values.back().push_back(normal(random));
    }
    for (int part = -1; part < count; ++part) {  // -1: all keys
      double top = -kInf, sum = 0;
      for (int j = 0; j < keys; ++j)
        if (part < 0 || owner[j] == part) top = std::max(top, scores[j]);
      if (top == -kInf) continue;
      double* out = part < 0 ? &p.all_out[std::size_t(r) * d]
                             : &p.out[(std::size_t(part) * pairs + r) * d];
      for (int j = 0; j < keys; ++j)
        if (part < 0 || owner[j] == part) sum += std::exp(scores[j] - top);
      for (int j = 0; j < keys; ++j)
        if (part < 0 || owner[j] == part)
          for (int x = 0; x < d; ++x) out[x] += std::exp(scores[j] - top) / sum * values[j][x];
      (part < 0 ? p.all_lse[r] : p.lse[std::size_t(part) * pairs + r]) = top + std::log(sum);
    }
  }
  return p;
}

template <class T>
std::vector<T> narrow(const std::vector<double>& x) {
  std::vector<T> out;
  for (const double value : x) out.push_back(xpu::from_float<T>(static_cast<float>(value)));
  return out;
}

template <class Part, class T>
void check_merge(int count, double score_scale) {
  const int rows = 7, heads = 3, d = 20, gap = 4;
  const Parts parts = make_parts(count, rows * heads, d, score_scale, 11);
  // Rows `gap` apart; out of a part that saw nothing is NaN.
  const std::int64_t stride = heads * d + gap;
  std::vector<Part> in(static_cast<std::size_t>(count * rows * stride));
  std::memset(in.data(), 0xff, in.size() * sizeof(Part));
  const auto dense = narrow<Part>(parts.out);
  for (int i = 0; i < count * rows; ++i)
    for (int h = 0; h < heads; ++h)
      if (parts.lse[std::size_t(i) * heads + h] != -kInf)
        std::copy_n(dense.begin() + (std::int64_t{i} * heads + h) * d, d,
                    in.begin() + i * stride + h * d);
  for_each_mode([&] {
    const Buffer<Part> device_parts(in);
    const Buffer<float> lses(narrow<float>(parts.lse)), lse(parts.all_lse.size());
    const Buffer<T> out(static_cast<std::size_t>(rows * heads * d));
    kernels::AttentionMergeParams<Part, T> p;
    p.parts = device_parts.get();
    p.lses = lses.get();
    p.out = out.get();
    p.lse = lse.get();
    p.part_stride = rows * stride;
    p.part_row_stride = stride;
    p.out_stride = heads * d;
    p.count = count;
    p.rows = rows;
    p.heads = heads;
    p.value_dim = d;
    kernels::attention_merge(p, nullptr);
    // An lse of size s is known to 2^-24 s, which the weights inherit; parts of bf16 to 2^-9.
    const double rounding = (sizeof(Part) == 2 || sizeof(T) == 2 ? 0.016 : 1e-6) +
                            8 * score_scale * 0x1p-23;
    check_close(out.host(), parts.all_out, rounding, rounding, "out");
    const auto got = lse.host();
    for (std::size_t i = 0; i < got.size(); ++i) {
      CAPTURE(i);
      if (parts.all_lse[i] == -kInf) {
        CHECK(got[i] == -INFINITY);
      } else {
        CHECK(std::fabs(got[i] - parts.all_lse[i]) <= 1e-6 * (4 + std::fabs(parts.all_lse[i])));
      }
    }
  });
}

}  // namespace

TEST_CASE("attention merge of parts equals the softmax over all keys") {
  for (const int count : {1, 2, 3, 8}) {
    CAPTURE(count);
    check_merge<float, float>(count, 2.0);
    check_merge<float, bf16>(count, 2.0);
    check_merge<bf16, bf16>(count, 2.0);
  }
}

TEST_CASE("attention merge stays finite where scores are far apart") {
  check_merge<float, float>(4, 1000.0);
}

TEST_CASE("attention merge lets a NaN reach the output") {
  const Buffer<float> parts(std::vector<float>(8, 1.0f)), lses(std::vector<float>{NAN, 0.0f});
  const Buffer<float> out(4), lse(1);
  kernels::AttentionMergeParams<float, float> p{parts.get(), lses.get(), out.get(), lse.get(),
                                                4, 4, 4, 2, 1, 1, 4};
  kernels::attention_merge(p, nullptr);
  CHECK(std::isnan(out.host()[0]));
  CHECK(std::isnan(lse.host()[0]));
}

TEST_CASE("attention merge refuses rows it cannot load") {
  kernels::AttentionMergeParams<float, float> p;
  p.value_dim = 6;
  CHECK_THROWS_AS(kernels::attention_merge(p, nullptr), xpu::Error);
  p.value_dim = 8;
  p.out_stride = 9;
  CHECK_THROWS_AS(kernels::attention_merge(p, nullptr), xpu::Error);
  p.out_stride = 8;
  CHECK_NOTHROW(kernels::attention_merge(p, nullptr));  // no rows
}
