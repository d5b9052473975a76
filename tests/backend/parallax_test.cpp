// Parallax against its definition in double (parallax_reference.h), and its exact properties: no probe
// is softmax attention, packing, causality, determinism. Runs again at every instruction-set level
// (CMakeLists.txt). Errors are measured as in attention_test.cpp, relative to the size of the result.
#include "backend/parallax_reference.h"

#include <doctest/doctest.h>
#include <omp.h>

#include <cstring>

using namespace lh;
using namespace lh::test;

namespace {

struct Bounds {
  double out, lse, mean, gradient;
};

// A weight p (1 + e) carries the rounding of e, a difference of sums of d products of order 1, and dk
// sums two such terms; so f32 bounds are those of attention five times over.
Bounds bounds_of(DType dtype) {
  if (dtype == DType::kF64) return {1e-12, 1e-13, 1e-12, 1e-12};
  if (dtype == DType::kF32) return {5e-5, 2e-6, 2e-5, 1e-4};
  return {4e-2, 2e-6, 2e-5, 8e-2};
}

constexpr DType kDTypes[] = {DType::kF32, DType::kBF16, DType::kF64};

void check_case(const AttentionCase& c, DType dtype, uint32_t seed = 1, double probe_size = 1) {
  CAPTURE(dtype_name(dtype));
  CAPTURE(c.heads);
  CAPTURE(c.kv_heads);
  CAPTURE(c.d);
  CAPTURE(c.v_d);
  CAPTURE(c.query_rows);
  CAPTURE(c.plan.mask.window);
  CAPTURE(c.plan.mask.sinks);
  ParallaxArrays a = random_parallax(c, dtype, seed, probe_size);
  parallax_reference(c, a);
  ParallaxTensors t(c, a, dtype);
  t.forward(c.plan);
  t.backward(c.plan);
  const Bounds bounds = bounds_of(dtype);
  CHECK(difference(t.result.out, a.out) < bounds.out);
  CHECK(difference(t.result.intercept, a.intercept) < bounds.out);
  CHECK(difference(t.result.lse, a.lse) < bounds.lse);
  CHECK(difference(t.result.probe_mean, a.probe_mean) < bounds.mean);
  CHECK(difference(t.gradients.dq, a.dq) < bounds.gradient);
  CHECK(difference(t.gradients.dr, a.dr) < bounds.gradient);
  CHECK(difference(t.gradients.dk, a.dk) < bounds.gradient);
  CHECK(difference(t.gradients.dv, a.dv) < bounds.gradient);
}

bool same_bytes(const Tensor& a, const Tensor& b) {
  return a.bytes() == b.bytes() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

}  // namespace

TEST_CASE("parallax of one document matches the definition at every ragged length") {
  for (const DType dtype : kDTypes)
    for (const int64_t n : {1, 2, 15, 16, 17, 33, 63, 64, 65, 111, 129, 300})
      check_case(packed_case({n}, 2, 2, 32, 32), dtype, static_cast<uint32_t>(n));
}

TEST_CASE("parallax matches the definition for every head size") {
  for (const DType dtype : kDTypes)
    for (const auto& [d, v_d] : std::vector<std::pair<int64_t, int64_t>>{
             {1, 1}, {6, 6}, {16, 16}, {60, 60}, {64, 64}, {100, 100}, {128, 128}, {64, 32}, {33, 7}})
      check_case(packed_case({70, 5}, 2, 1, d, v_d), dtype);
}

TEST_CASE("parallax with grouped query heads matches the definition") {
  for (const DType dtype : kDTypes)
    for (const int64_t group : {1, 2, 3, 8})
      check_case(packed_case({100, 1, 64, 30}, 2 * group, 2, 64, 64), dtype);
}

TEST_CASE("parallax with windows and sinks matches the definition") {
  for (const DType dtype : kDTypes)
    for (const int64_t window : {1, 7, 16, 64, 100, 200, 256, 1000})
      for (const int64_t sinks : {0, 4})
        check_case(packed_case({330, 20, 1}, 2, 1, 16, 16, {window, sinks}), dtype);
}

TEST_CASE("parallax of rows outside every segment is zero") {
  for (const DType dtype : kDTypes) {
    AttentionCase c = packed_case({40}, 2, 1, 16, 16);
    c.query_rows = 90;
    c.key_rows = 95;
    c.plan.segments = {
        {50, 30, 60, 30, 0}, {3, 20, 4, 20, 0}, {30, 0, 30, 0, 0}, {81, 4, 91, 0, 0}};
    check_case(c, dtype);
  }
}

TEST_CASE("parallax of segments that share keys, or whose queries come later, matches the definition") {
  for (const DType dtype : kDTypes)
    for (const AttentionMask mask : {AttentionMask{0, 0}, AttentionMask{50, 3}}) {
      AttentionCase c = packed_case({1}, 4, 2, 32, 32, mask);
      c.query_rows = 90;
      c.key_rows = 260;
      c.plan.segments = {{0, 40, 10, 90, 50}, {40, 30, 10, 180, 150}, {70, 20, 190, 70, 50}};
      check_case(c, dtype);
    }
}

TEST_CASE("parallax decoding a few rows against a long cache matches the definition") {
  for (const DType dtype : kDTypes)
    for (const int64_t heads : {2, 4, 16})
      for (const int64_t rows : {1, 2, 5})
        for (const AttentionMask mask : {AttentionMask{0, 0}, AttentionMask{300, 5}}) {
          AttentionCase c = packed_case({1}, heads, 2, 36, 20, mask);
          c.query_rows = 2 * rows;
          c.key_rows = 2700;
          c.plan.segments = {{0, rows, 0, 2500, 2500 - rows}, {rows, rows, 2500, 190, 190 - rows}};
          ParallaxArrays a = random_parallax(c, dtype, 5);
          parallax_reference(c, a);
          ParallaxTensors t(c, a, dtype);
          t.forward(c.plan);
          CHECK(difference(t.result.out, a.out) < bounds_of(dtype).out);
          CHECK(difference(t.result.intercept, a.intercept) < bounds_of(dtype).out);
          CHECK(difference(t.result.lse, a.lse) < bounds_of(dtype).lse);
          CHECK(difference(t.result.probe_mean, a.probe_mean) < bounds_of(dtype).mean);
          // No probe is softmax attention here too.
          std::fill(a.r.begin(), a.r.end(), 0);
          ParallaxTensors none(c, a, dtype);
          none.forward(c.plan);
          Tensor out = Tensor::empty_like(none.result.out);
          Tensor lse = Tensor::empty_like(none.result.lse);
          cpu::attention_forward(none.in.q, none.in.k, none.in.v, c.plan, out, lse);
          CHECK(same_bytes(none.result.out, out));
        }
}

TEST_CASE("parallax decodes to the same bits for every number of threads") {
  const int threads = omp_get_max_threads();
  AttentionCase c = packed_case({1}, 8, 2, 64, 64);
  c.key_rows = 3000;
  c.plan.segments = {{0, 1, 0, 3000, 2999}};
  for (const DType dtype : kDTypes) {
    const ParallaxArrays a = random_parallax(c, dtype, 7);
    omp_set_num_threads(1);
    ParallaxTensors one(c, a, dtype);
    one.forward(c.plan);
    omp_set_num_threads(5);
    ParallaxTensors many(c, a, dtype);
    many.forward(c.plan);
    CHECK(same_bytes(one.result.out, many.result.out));
    CHECK(same_bytes(one.result.probe_mean, many.result.probe_mean));
  }
  omp_set_num_threads(threads);
}

TEST_CASE("parallax gradients match finite differences") {
  for (const AttentionMask mask : {AttentionMask{0, 0}, AttentionMask{20, 2}})
    for (const int64_t kv_heads : {1, 2, 4}) {
      const AttentionCase c = packed_case({70, 9}, 4, kv_heads, 8, 12, mask);
      ParallaxArrays a = random_parallax(c, DType::kF64, 3);
      ParallaxTensors t(c, a, DType::kF64);
      t.forward(c.plan);
      t.backward(c.plan);
      const auto loss = [&] {
        ParallaxTensors again(c, a, DType::kF64);
        again.in = t.in;
        again.forward(c.plan);
        double sum = 0;
        for (int64_t i = 0; i < t.d_out.numel(); ++i)
          sum += again.result.out.data<double>()[i] * t.d_out.data<double>()[i];
        return sum;
      };
      for (const auto& [value, gradient] :
           {std::pair{t.in.q, t.gradients.dq}, {t.in.r, t.gradients.dr}, {t.in.k, t.gradients.dk},
            {t.in.v, t.gradients.dv}})
        for (int64_t i = 5; i < value.numel(); i += value.numel() / 13) {
          const double step = 1e-5, kept = value.data<double>()[i];
          value.data<double>()[i] = kept + step;
          const double above = loss();
          value.data<double>()[i] = kept - step;
          const double below = loss();
          value.data<double>()[i] = kept;
          // In f64 a central difference is off by about step^2, and by rounding / step = 1e-11.
          CHECK(gradient.data<double>()[i] ==
                doctest::Approx((above - below) / (2 * step)).epsilon(1e-6).scale(1));
        }
    }
}

TEST_CASE("parallax without a probe is softmax attention bit for bit, and the probe still learns") {
  for (const DType dtype : kDTypes) {
    const AttentionCase c = packed_case({130, 40}, 4, 2, 32, 32, {100, 1});
    const ParallaxArrays a = random_parallax(c, dtype, 3, 0);
    ParallaxTensors t(c, a, dtype);
    t.forward(c.plan);
    t.backward(c.plan);
    Tensor out = Tensor::empty_like(t.result.out), lse = Tensor::empty_like(t.result.lse);
    cpu::attention_forward(t.in.q, t.in.k, t.in.v, c.plan, out, lse);
    CHECK(same_bytes(t.result.out, out));
    CHECK(same_bytes(t.result.intercept, out));
    CHECK(same_bytes(t.result.lse, lse));
    double largest = 0;
    for (const double x : to_doubles(t.gradients.dr)) largest = std::max(largest, std::abs(x));
    CHECK(largest > 0.1);
  }
}

TEST_CASE("parallax does not change when every key moves by the same vector") {
  const AttentionCase c = packed_case({150}, 2, 1, 16, 16);
  ParallaxArrays a = random_parallax(c, DType::kF64, 3);
  ParallaxTensors before(c, a, DType::kF64);
  before.forward(c.plan);
  for (size_t i = 0; i < a.k.size(); ++i) a.k[i] += static_cast<double>(i % 16) - 3;
  ParallaxTensors after(c, a, DType::kF64);
  after.forward(c.plan);
  CHECK(difference(after.result.out, to_doubles(before.result.out)) < 1e-12);
}

TEST_CASE("parallax keeps its precision when all probe scores share a large part") {
  // Keys with a mean that the probe sees: scores of some 16 standard deviations.
  const AttentionCase c = packed_case({1024}, 1, 1, 64, 64);
  ParallaxArrays a = random_parallax(c, DType::kBF16, 3);
  for (size_t i = 0; i < a.k.size(); ++i)
    a.k[i] = static_cast<float>(bf16(static_cast<float>(a.k[i] + (i % 64 == 5 ? 16 : 0))));
  for (size_t i = 5; i < a.r.size(); i += 64) a.r[i] = 8;
  for (size_t i = 5; i < a.q.size(); i += 64) a.q[i] = 0;
  parallax_reference(c, a);
  ParallaxTensors t(c, a, DType::kBF16);
  t.forward(c.plan);
  double error = 0, size = 0;
  const std::vector<double> got = to_doubles(t.result.out);
  for (size_t i = 0; i < got.size(); ++i) {
    error += (got[i] - a.out[i]) * (got[i] - a.out[i]);
    size += a.out[i] * a.out[i];
  }
  CHECK(std::sqrt(error / size) < 4e-3);  // 3.6e-2 if the weights were not centred
}

TEST_CASE("parallax of packed documents equals each alone bit for bit") {
  for (const DType dtype : kDTypes) {
    const AttentionCase c = packed_case({65, 1, 130, 3}, 4, 2, 32, 32, {100, 1});
    const ParallaxArrays a = random_parallax(c, dtype, 2);
    ParallaxTensors t(c, a, dtype);
    t.forward(c.plan);
    t.backward(c.plan);
    for (const AttentionSegment& s : c.plan.segments) {
      const auto rows = [&](const Tensor& x) {
        return x.slice(0, s.query_begin, s.query_begin + s.query_length);
      };
      ParallaxTensors alone = t;
      alone.in = {rows(t.in.q), rows(t.in.r), rows(t.in.k), rows(t.in.v)};
      alone.d_out = rows(t.d_out);
      const auto like = [&](const Tensor& x) { return Tensor::empty_like(rows(x)); };
      alone.result = {like(t.result.out), like(t.result.intercept), like(t.result.lse),
                      like(t.result.probe_mean)};
      alone.gradients = {like(t.gradients.dq), like(t.gradients.dr), like(t.gradients.dk),
                         like(t.gradients.dv)};
      AttentionPlan plan = c.plan;
      plan.segments = {{0, s.query_length, 0, s.key_length, 0}};
      alone.forward(plan);
      alone.backward(plan);
      const auto whole = t.outputs(), one = alone.outputs();
      for (size_t i = 0; i < whole.size(); ++i) CHECK(same_bytes(one[i], rows(whole[i])));
    }
  }
}

TEST_CASE("parallax outputs do not change in any bit when a later token changes") {
  for (const DType dtype : kDTypes) {
    const AttentionCase c = packed_case({140}, 2, 1, 32, 32);
    for (const int64_t token : {1, 31, 64, 100, 139}) {
      ParallaxArrays a = random_parallax(c, dtype, 4);
      ParallaxTensors before(c, a, dtype);
      before.forward(c.plan);
      for (auto* values : {&a.q, &a.r, &a.k, &a.v})
        for (size_t i = values->size() * static_cast<size_t>(token) / 140; i < values->size(); ++i)
          (*values)[i] = 100;
      ParallaxTensors after(c, a, dtype);
      after.forward(c.plan);
      for (const auto& [x, y] : {std::pair{before.result.out, after.result.out},
                                 {before.result.probe_mean, after.result.probe_mean}})
        CHECK(same_bytes(x.slice(0, 0, token), y.slice(0, 0, token)));
    }
  }
}

TEST_CASE("parallax results are the same bits for every number of threads") {
  const int threads = omp_get_max_threads();
  for (const DType dtype : kDTypes)
    // One document and one head: with several threads the backward takes two passes.
    for (const int64_t kv_heads : {1, 4}) {
      const AttentionCase c = packed_case({300, 100}, 4, kv_heads, 32, 32, {150, 2});
      const ParallaxArrays a = random_parallax(c, dtype, 6);
      omp_set_num_threads(1);
      ParallaxTensors one(c, a, dtype);
      one.forward(c.plan);
      one.backward(c.plan);
      for (const int count : {2, 3, 8}) {
        omp_set_num_threads(count);
        ParallaxTensors many(c, a, dtype);
        many.forward(c.plan);
        many.backward(c.plan);
        const auto x = one.outputs(), y = many.outputs();
        for (size_t i = 0; i < x.size(); ++i) CHECK(same_bytes(x[i], y[i]));
      }
    }
  omp_set_num_threads(threads);
}

TEST_CASE("parallax refuses a probe that does not fit the queries") {
  const AttentionCase c = packed_case({10, 10}, 4, 2, 16, 16);
  ParallaxTensors t(c, random_parallax(c, DType::kF32, 1), DType::kF32);
  t.in.r = Tensor::zeros({20, 4, 8}, DType::kF32);
  CHECK_THROWS_WITH_AS(t.forward(c.plan), doctest::Contains("r: expected"), ShapeError);
  t.in.r = Tensor::zeros({20, 4, 16}, DType::kF64);
  CHECK_THROWS_WITH_AS(t.forward(c.plan), doctest::Contains("r: expected"), ShapeError);
}
