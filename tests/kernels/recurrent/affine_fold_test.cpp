// The recurrence and its transitions' gradient against loops in fp64.
#include "kernels/recurrent/affine_fold.h"

#include "kernels/support/harness.h"

using namespace lh;
using namespace lh::test;
using kernels::Transition;

namespace {

struct Case {
  Transition transition;
  int segments, heads, k, v;
};

int entries(const Case& c) {
  return c.transition == Transition::kScalar ? 1 : c.transition == Transition::kDiagonal ? c.k : c.k * c.k;
}

double transition_at(const std::vector<float>& a, const Case& c, int item, int row, int column) {
  if (c.transition == Transition::kMatrix)
    return a[(static_cast<std::size_t>(item) * c.k + row) * c.k + column];
  if (row != column) return 0;
  return c.transition == Transition::kScalar ? a[item] : a[static_cast<std::size_t>(item) * c.k + row];
}

void fold_case(const Case& c, bool backwards) {
  CAPTURE(c.segments);
  CAPTURE(c.k);
  CAPTURE(c.v);
  CAPTURE(backwards);
  const int items = c.segments * c.heads;
  const std::size_t state = static_cast<std::size_t>(c.k) * c.v;
  const auto a = random_values<float>(static_cast<std::size_t>(items) * entries(c), 1, 0.3f);
  const auto b = random_values<float>(items * state, 2);
  std::vector<double> want(items * state, 0.0);
  for (int head = 0; head < c.heads; ++head)
    for (int i = 1; i < c.segments; ++i) {
      const int j = backwards ? c.segments - 1 - i : i, from = backwards ? j + 1 : j - 1;
      const int item = from * c.heads + head;
      for (int row = 0; row < c.k; ++row)
        for (int column = 0; column < c.v; ++column) {
          double sum = b[item * state + row * c.v + column];
          for (int l = 0; l < c.k; ++l)
            sum += (backwards ? transition_at(a, c, item, l, row) : transition_at(a, c, item, row, l)) *
                   want[item * state + l * c.v + column];
          want[(static_cast<std::size_t>(j) * c.heads + head) * state + row * c.v + column] = sum;
        }
    }
  Buffer<float> ba(a), bb(b), out(items * state);
  kernels::affine_fold({ba.get(), bb.get(), out.get(), c.transition, c.segments, c.heads, c.k, c.v,
                        backwards},
                       nullptr);
  check_close(out.host(), want, 1e-5, 1e-5, "states");

  const auto g = random_values<float>(items * state, 3);
  std::vector<double> gradient;
  for (int item = 0; item < items; ++item) {
    double trace = 0;
    for (int row = 0; row < c.k; ++row)
      for (int l = 0; l < c.k; ++l) {
        double sum = 0;
        for (int column = 0; column < c.v; ++column)
          sum += static_cast<double>(g[item * state + row * c.v + column]) *
                 b[item * state + l * c.v + column];
        if (c.transition == Transition::kMatrix) gradient.push_back(sum);
        if (c.transition == Transition::kDiagonal && l == row) gradient.push_back(sum);
        if (l == row) trace += sum;
      }
    if (c.transition == Transition::kScalar) gradient.push_back(trace);
  }
  Buffer<float> bg(g), da(gradient.size());
  kernels::affine_transition_gradient(
      bg.get(), bb.get(), {nullptr, nullptr, nullptr, c.transition, c.segments, c.heads, c.k, c.v, false},
      da.get(), nullptr);
  check_close(da.host(), gradient, 1e-5, 1e-4, "transitions");
}

}  // namespace

TEST_CASE("affine recurrences over segments, both ways") {
  for_each_mode([] {
    for (const bool backwards : {false, true}) {
      for (const Transition kind : {Transition::kScalar, Transition::kDiagonal, Transition::kMatrix}) {
        fold_case({kind, 5, 2, 16, 40}, backwards);
        fold_case({kind, 1, 1, 3, 5}, backwards);
        fold_case({kind, 4, 3, 9, 1}, backwards);
      }
    }
  });
}

TEST_CASE("more rows than shared memory holds are refused") {
  kernels::AffineParams p;
  p.segments = p.heads = p.v = 1;
  p.k = 5000;
  CHECK_THROWS_WITH_AS(kernels::affine_fold(p, nullptr), doctest::Contains("got 5000"), xpu::Error);
}
