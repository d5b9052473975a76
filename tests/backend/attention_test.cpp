// Attention against its definition in double (attention_reference.h), and its exact properties:
// packing, causality, determinism, memory. Runs again at every instruction-set level
// (CMakeLists.txt).
#include <doctest/doctest.h>
#include <omp.h>

#include <cstring>

#include "backend/attention_checks.h"
#include "runtime/memory.h"

using namespace lh;
using namespace lh::test;

TEST_CASE("attention of one document matches the definition at every ragged length") {
  for (const DType dtype : kDTypes)
    for (const int64_t n : {1, 2, 15, 16, 17, 33, 63, 64, 65, 129, 300})
      check_case(packed_case({n}, 2, 2, 32, 32), dtype, static_cast<uint32_t>(n));
}

TEST_CASE("attention matches the definition for every head size") {
  for (const DType dtype : kDTypes) {
    for (const int64_t d : {1, 6, 16, 20, 32, 64, 80, 96, 128, 256})
      check_case(packed_case({70, 5}, 2, 1, d, d), dtype);
    check_case(packed_case({70, 5}, 2, 1, 64, 32), dtype);
    check_case(packed_case({70, 5}, 2, 1, 48, 128), dtype);
    check_case(packed_case({70, 5}, 2, 1, 192, 128), dtype);
    check_case(packed_case({70, 5}, 2, 1, 33, 7), dtype);
  }
}

TEST_CASE("attention with grouped query heads matches the definition") {
  for (const DType dtype : kDTypes)
    for (const int64_t group : {1, 2, 3, 8})
      check_case(packed_case({100, 1, 64, 30}, 2 * group, 2, 64, 64), dtype);
}

TEST_CASE("attention over packed documents matches the definition") {
  for (const DType dtype : kDTypes)
    check_case(packed_case({1, 64, 1, 1, 200, 17, 63, 3, 65}, 2, 1, 32, 16), dtype);
}

TEST_CASE("attention with windows and sinks matches the definition") {
  for (const DType dtype : kDTypes)
    for (const int64_t window : {1, 7, 64, 100, 128, 200, 1000})
      for (const int64_t sinks : {0, 1, 4, 70})
        check_case(packed_case({330, 20, 1}, 2, 1, 16, 16, {window, sinks}), dtype);
}

TEST_CASE("attention of rows outside every segment is zero and their lse is minus infinity") {
  for (const DType dtype : kDTypes) {
    AttentionCase c = packed_case({40}, 2, 1, 16, 16);
    c.query_rows = 90;
    c.key_rows = 95;
    c.plan.segments = {
        {50, 30, 60, 30, 0}, {3, 20, 4, 20, 0}, {30, 0, 30, 0, 0}, {81, 4, 91, 0, 0}};
    check_case(c, dtype);
  }
}

TEST_CASE("attention of queries that come after or before the first key matches the definition") {
  for (const DType dtype : kDTypes) {
    for (const AttentionMask mask : {AttentionMask{0, 0}, AttentionMask{50, 3}}) {
      AttentionCase c = packed_case({1}, 4, 2, 32, 32, mask);
      c.query_rows = 100;
      c.key_rows = 400;
      // The tail of a document, a chunk in the middle whose keys go on, queries that see nothing.
      c.plan.segments = {{0, 37, 0, 237, 200}, {37, 33, 237, 70, 20}, {70, 30, 310, 90, -10}};
      check_case(c, dtype);
    }
  }
}

TEST_CASE("attention decoding a few rows against a long cache matches the definition") {
  for (const DType dtype : kDTypes) {
    for (const int64_t heads : {2, 4, 16}) {
      for (const int64_t rows : {1, 2, 5, 16}) {
        for (const int64_t d : {64, 80, 36}) {
          for (const AttentionMask mask : {AttentionMask{0, 0}, AttentionMask{300, 5}}) {
            AttentionCase c = packed_case({1}, heads, 2, d, d, mask);
            c.query_rows = 2 * rows;
            c.key_rows = 1700;
            c.plan.segments = {{0, rows, 0, 1500, 1500 - rows},
                               {rows, rows, 1500, 190, 190 - rows}};
            AttentionArrays a = random_arrays(c, dtype, 5);
            for (const bool biased : {false, true}) {
              c.plan.mask.bias_window = biased ? 40 : 0;
              if (biased) add_random_bias(c, a, 6);
              // A chunk of keys all of which are closed.
              for (size_t j = 0; j < 1100 * 2 && biased; ++j)
                a.bias[j] = -std::numeric_limits<double>::infinity();
              attention_reference(c, a);
              AttentionTensors t(c, a, dtype);
              t.forward(c.plan);
              CHECK(difference(t.out, a.out) < bounds_of(dtype).out);
              CHECK(difference(t.lse, a.lse) < bounds_of(dtype).lse);
            }
          }
        }
      }
    }
  }
}

TEST_CASE("attention reads and writes views with a row stride") {
  for (const DType dtype : kDTypes) {
    const AttentionCase c = packed_case({75, 30}, 4, 2, 32, 32);
    AttentionArrays a = random_arrays(c, dtype, 9);
    AttentionTensors plain(c, a, dtype), views(c, a, dtype);
    plain.forward(c.plan);
    plain.backward(c.plan);
    // q, k and v as one projection would leave them: [rows, 4 + 2 + 2 heads, d].
    const auto pack = [&](Tensor& q, Tensor& k, Tensor& v) {
      const Tensor all = Tensor::zeros({c.query_rows, 8, 32}, dtype);
      int64_t begin = 0;
      for (Tensor* t : {&q, &k, &v}) {
        Tensor view = all.slice(1, begin, begin + t->size(1));
        begin += t->size(1);
        const size_t row_bytes = t->bytes() / static_cast<size_t>(t->size(0));
        for (int64_t r = 0; r < t->size(0); ++r)
          std::memcpy(view.slice(0, r, r + 1).raw(), t->slice(0, r, r + 1).raw(), row_bytes);
        *t = view;
      }
    };
    pack(views.q, views.k, views.v);
    pack(views.dq, views.dk, views.dv);
    views.forward(c.plan);
    views.backward(c.plan);
    CHECK(same_bytes(plain.out, views.out));
    CHECK(same_bytes(plain.lse, views.lse));
    for (const auto& [whole, view] :
         {std::pair{plain.dq, views.dq}, {plain.dk, views.dk}, {plain.dv, views.dv}})
      for (int64_t r = 0; r < whole.size(0); ++r)
        CHECK(std::memcmp(whole.slice(0, r, r + 1).raw(), view.slice(0, r, r + 1).raw(),
                          whole.bytes() / static_cast<size_t>(whole.size(0))) == 0);
  }
}

TEST_CASE("attention gradients match finite differences") {
  for (const AttentionMask mask : {AttentionMask{0, 0}, AttentionMask{20, 2}}) {
    const AttentionCase c = packed_case({70, 9}, 4, 2, 8, 12, mask);
    AttentionArrays a = random_arrays(c, DType::kF64, 3);
    AttentionTensors t(c, a, DType::kF64);
    t.forward(c.plan);
    t.backward(c.plan);
    const auto loss = [&] {
      Tensor out = Tensor::empty_like(t.out), lse = Tensor::empty_like(t.lse);
      cpu::attention_forward(t.q, t.k, t.v, c.plan, out, lse);
      double sum = 0;
      for (int64_t i = 0; i < out.numel(); ++i)
        sum += out.data<double>()[i] * t.d_out.data<double>()[i];
      return sum;
    };
    for (const auto& [value, gradient] : {std::pair{t.q, t.dq}, {t.k, t.dk}, {t.v, t.dv}}) {
      for (int64_t i = 5; i < value.numel(); i += value.numel() / 17) {
        const double step = 1e-5, kept = value.data<double>()[i];
        value.data<double>()[i] = kept + step;
        const double above = loss();
        value.data<double>()[i] = kept - step;
        const double below = loss();
        value.data<double>()[i] = kept;
        CHECK(gradient.data<double>()[i] ==
              doctest::Approx((above - below) / (2 * step)).epsilon(1e-6).scale(1));
      }
    }
  }
}

TEST_CASE("attention of packed documents equals attention of each alone bit for bit") {
  for (const DType dtype : kDTypes) {
    const AttentionCase c = packed_case({65, 1, 130, 3}, 4, 2, 32, 32, {100, 1});
    AttentionArrays a = random_arrays(c, dtype, 2);
    AttentionTensors t(c, a, dtype);
    t.forward(c.plan);
    t.backward(c.plan);
    for (const AttentionSegment& s : c.plan.segments) {
      const auto rows = [&](const Tensor& x) {
        return x.slice(0, s.query_begin, s.query_begin + s.query_length);
      };
      AttentionPlan alone = c.plan;
      alone.segments = {{0, s.query_length, 0, s.key_length, 0}};
      Tensor out = Tensor::empty_like(rows(t.out)), lse = Tensor::empty_like(rows(t.lse));
      Tensor dq = Tensor::empty_like(rows(t.dq)), dk = Tensor::empty_like(rows(t.dk)),
             dv = Tensor::empty_like(rows(t.dv));
      cpu::attention_forward(rows(t.q), rows(t.k), rows(t.v), alone, out, lse);
      cpu::attention_backward(rows(t.q), rows(t.k), rows(t.v), out, lse, rows(t.d_out), alone, dq,
                              dk, dv);
      CHECK(same_bytes(out, rows(t.out)));
      CHECK(same_bytes(lse, rows(t.lse)));
      CHECK(same_bytes(dq, rows(t.dq)));
      CHECK(same_bytes(dk, rows(t.dk)));
      CHECK(same_bytes(dv, rows(t.dv)));
    }
  }
}

TEST_CASE("attention outputs do not change in any bit when a later token changes") {
  for (const DType dtype : kDTypes) {
    const AttentionCase c = packed_case({140}, 2, 1, 32, 32);
    for (const int64_t token : {1, 31, 64, 100, 139}) {
      AttentionArrays a = random_arrays(c, dtype, 4);
      AttentionTensors before(c, a, dtype);
      before.forward(c.plan);
      for (auto* values : {&a.q, &a.k, &a.v})
        for (size_t i = values->size() * static_cast<size_t>(token) / 140; i < values->size(); ++i)
          (*values)[i] = 100;
      AttentionTensors after(c, a, dtype);
      after.forward(c.plan);
      CHECK(same_bytes(before.out.slice(0, 0, token), after.out.slice(0, 0, token)));
      CHECK(same_bytes(before.lse.slice(0, 0, token), after.lse.slice(0, 0, token)));
    }
  }
}

TEST_CASE("attention results are the same bits for every number of threads") {
  const int threads = omp_get_max_threads();
  for (const DType dtype : kDTypes) {
    // One document and one head: with several threads the backward takes two passes.
    for (const int64_t kv_heads : {1, 4}) {
      const AttentionCase c = packed_case({300, 100}, 4, kv_heads, 32, 32, {150, 2});
      const AttentionArrays a = random_arrays(c, dtype, 6);
      omp_set_num_threads(1);
      AttentionTensors one(c, a, dtype);
      one.forward(c.plan);
      one.backward(c.plan);
      for (const int count : {2, 3, 8}) {
        omp_set_num_threads(count);
        AttentionTensors many(c, a, dtype);
        many.forward(c.plan);
        many.backward(c.plan);
        CHECK(same_bytes(one.out, many.out));
        CHECK(same_bytes(one.lse, many.lse));
        CHECK(same_bytes(one.dq, many.dq));
        CHECK(same_bytes(one.dk, many.dk));
        CHECK(same_bytes(one.dv, many.dv));
      }
    }
    // Keys that a bias leaves open are gathered for all queries of a task.
    for (const int64_t group : {1, 2, 3}) {
      const AttentionCase c = packed_case({2500, 100}, group, 1, 16, 16, {0, 0, 40});
      AttentionArrays a = random_arrays(c, dtype, 6);
      add_hard_bias(c, a, 0.2, true, 7);
      omp_set_num_threads(1);
      AttentionTensors one(c, a, dtype);
      one.forward(c.plan);
      one.backward(c.plan);
      for (const int count : {2, 3, 8}) {
        omp_set_num_threads(count);
        AttentionTensors many(c, a, dtype);
        many.forward(c.plan);
        many.backward(c.plan);
        CHECK(same_bytes(one.out, many.out));
        CHECK(same_bytes(one.lse, many.lse));
        CHECK(same_bytes(one.dq, many.dq));
        CHECK(same_bytes(one.dk, many.dk));
        CHECK(same_bytes(one.dv, many.dv));
        CHECK(same_bytes(one.dbias, many.dbias));
      }
    }
    AttentionCase decode = packed_case({1}, 8, 2, 64, 64);
    decode.key_rows = 3000;
    decode.plan.segments = {{0, 1, 0, 3000, 2999}};
    const AttentionArrays a = random_arrays(decode, dtype, 7);
    omp_set_num_threads(1);
    AttentionTensors one(decode, a, dtype);
    one.forward(decode.plan);
    omp_set_num_threads(5);
    AttentionTensors many(decode, a, dtype);
    many.forward(decode.plan);
    CHECK(same_bytes(one.out, many.out));
    CHECK(same_bytes(one.lse, many.lse));
  }
  omp_set_num_threads(threads);
}

TEST_CASE("attention stays finite when scores are huge") {
  for (const DType dtype : kDTypes) {
    const AttentionCase c = packed_case({150}, 1, 1, 64, 64);
    AttentionArrays a = random_arrays(c, dtype, 8, 100);  // scores of some 1e4
    attention_reference(c, a);
    AttentionTensors t(c, a, dtype);
    t.forward(c.plan);
    t.backward(c.plan);
    CHECK(difference(t.out, a.out) < (dtype == DType::kBF16 ? 4e-2 : 2e-2));
    for (const Tensor& gradient : {t.dq, t.dk, t.dv})
      for (const double value : to_doubles(gradient)) REQUIRE(std::isfinite(value));
  }
}

TEST_CASE("attention lets a NaN score reach the output") {
  for (const DType dtype : kDTypes) {
    const AttentionCase c = packed_case({100}, 1, 1, 16, 16);
    AttentionArrays a = random_arrays(c, dtype, 8);
    a.k[16 * 50] = std::numeric_limits<double>::quiet_NaN();
    AttentionTensors t(c, a, dtype);
    t.forward(c.plan);
    const std::vector<double> out = to_doubles(t.out);
    CHECK(std::isfinite(out[16 * 49]));
    CHECK(std::isnan(out[16 * 50]));
    CHECK(std::isnan(out[16 * 99]));
  }
}

TEST_CASE("attention scratch memory does not grow with the length of a document") {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    int64_t scratch[2] = {0, 0};
    for (const int i : {0, 1}) {
      // Both too long for dq of one key-value head to fit the scratch of one pass.
      AttentionCase c = packed_case({i == 0 ? 4096 : 8192}, 16, 1, 128, 16, {64, 0});
      AttentionArrays a;
      const auto zeros = [&](int64_t count) {
        return std::vector<double>(static_cast<size_t>(count));
      };
      a.q = zeros(c.query_rows * c.heads * c.d);
      a.k = zeros(c.key_rows * c.d);
      a.v = zeros(c.key_rows * c.v_d);
      a.d_out = zeros(c.query_rows * c.heads * c.v_d);
      AttentionTensors t(c, a, dtype);
      reset_memory_peak();
      const int64_t before = memory_report().total_now;
      t.forward(c.plan);
      t.backward(c.plan);
      scratch[i] = memory_report().total_peak - before;
    }
    CHECK(scratch[1] == scratch[0]);
    CHECK(scratch[0] < omp_get_max_threads() * (int64_t{2} << 20));
  }
}

TEST_CASE("attention refuses operands that do not fit with a message that names them") {
  const AttentionCase c = packed_case({10, 10}, 4, 2, 16, 16);
  const AttentionArrays a = random_arrays(c, DType::kF32, 1);
  AttentionTensors t(c, a, DType::kF32);
  Tensor bad = Tensor::zeros({20, 3, 16}, DType::kF32);
  CHECK_THROWS_WITH_AS(cpu::attention_forward(t.q, bad, bad, c.plan, t.out, t.lse),
                       doctest::Contains("4 query heads"), ShapeError);
  CHECK_THROWS_WITH_AS(cpu::attention_forward(t.q, t.k, bad, c.plan, t.out, t.lse),
                       doctest::Contains("v: expected"), ShapeError);
  AttentionPlan overlap = c.plan;
  overlap.segments[1].query_begin = 5;
  CHECK_THROWS_WITH_AS(cpu::attention_forward(t.q, t.k, t.v, overlap, t.out, t.lse),
                       doctest::Contains("queries"), ShapeError);
  AttentionPlan outside = c.plan;
  outside.segments[1].key_begin = 15;
  CHECK_THROWS_WITH_AS(cpu::attention_forward(t.q, t.k, t.v, outside, t.out, t.lse),
                       doctest::Contains("keys"), ShapeError);
}

TEST_CASE("attention whose segments share keys matches the definition") {
  for (const DType dtype : kDTypes) {
    for (const AttentionMask mask : {AttentionMask{0, 0}, AttentionMask{50, 3}}) {
      AttentionCase c = packed_case({1}, 4, 2, 32, 32, mask);
      c.query_rows = 90;
      c.key_rows = 260;
      // A process of a context-parallel group: two pieces of one document and one of another.
      c.plan.segments = {{0, 40, 10, 90, 50}, {40, 30, 10, 180, 150}, {70, 20, 190, 70, 50}};
      check_case(c, dtype);
    }
  }
}
