// Attention over pages against attention over the same keys in a row, and what pages refuse.
#include "paged_support.h"

#include "backend/attention.h"
#include "backend/elementwise.h"

using namespace lh;
using namespace lh::test;

namespace {

/// The same keys one sequence after the other.
Tensor in_a_row(const Tensor& pool, const PagedCase& c, const Tensor& table) {
  std::vector<double> rows;
  const auto all = to_doubles(pool);
  for (size_t s = 0; s < c.lengths.size(); ++s)
    for (int64_t j = 0; j < c.lengths[s]; ++j) {
      const int64_t page = table.data<int32_t>()[static_cast<int64_t>(s) * c.table_width() +
                                                 j / c.page_rows];
      const auto first = all.begin() + (page * c.page_rows + j % c.page_rows) * pool.size(2);
      rows.insert(rows.end(), first, first + pool.size(2));
    }
  Tensor result = Tensor::empty({static_cast<int64_t>(rows.size()) / pool.size(2), 1, pool.size(2)},
                                pool.dtype());
  assign(result, rows);
  return result;
}

Tensor as(const Tensor& t, DType dtype) {
  Tensor result = Tensor::empty(t.shape(), dtype);
  cpu::copy(t, result);
  return result;
}

}  // namespace

TEST_CASE("attention over pages is attention over the same keys in a row") {
  for (const PagedCase& c :
       {PagedCase{{0, 1, 16, 17, 300, 2500}}, PagedCase{{700, 40}, 20, 32, 8, 64},
        PagedCase{{90}, 1, 20, 12}})
    for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16}) {
      CAPTURE(std::string(dtype_name(dtype)));
      const auto sequences = static_cast<int64_t>(c.lengths.size());
      const Tensor q = random_tensor({sequences, c.heads, c.d}, dtype, 1),
                   k = random_tensor(c.pool(c.d), dtype, 2),
                   v = random_tensor(c.pool(c.v_d), dtype, 3), table = c.table();
      AttentionPlan plan;
      plan.scale = 0.3;
      int64_t first = 0;
      for (int64_t s = 0; s < sequences; ++s) {
        const int64_t length = c.lengths[static_cast<size_t>(s)];
        plan.segments.push_back({s, 1, first, length, length - 1});
        first += length;
      }
      const auto dense = [&](DType type) {
        Tensor out = Tensor::empty({sequences, c.heads, c.v_d}, type);
        Tensor lse = Tensor::empty({sequences, c.heads},
                                   type == DType::kF64 ? DType::kF64 : DType::kF32);
        cpu::attention_forward(as(q, type), as(in_a_row(k, c, table), type),
                               as(in_a_row(v, c, table), type), plan, out, lse);
        return std::pair{out, lse};
      };
      const auto [want_out, want_lse] = dense(dtype);
      const auto [exact_out, exact_lse] = dense(DType::kF64);
      Tensor out = Tensor::empty_like(want_out), lse = Tensor::empty_like(want_lse);
      cpu::paged_attention(q, c.keys(k, v, table, c.length_tensor()), 0.3, out, lse);
      LH_CHECK_TWICE(out, want_out, to_doubles(exact_out), 1e-6);
      for (size_t i = 0; i < to_doubles(lse).size(); ++i) {
        const double got = to_doubles(lse)[i], want = to_doubles(exact_lse)[i];
        CHECK((got == want || std::abs(got - want) < 1e-4));
      }
    }
}

TEST_CASE("appending in runs of any length leaves the cache that single tokens leave") {
  constexpr int64_t kTokens = 90, kHeads = 3, kD = 4;
  for (const int64_t window : {1, 7, 16, 33})
    for (const int64_t run : {2, 13, 90}) {
      const Tensor k = random_tensor({kTokens, kHeads, kD}, DType::kF32, 1),
                   v = random_tensor({kTokens, kHeads, kD}, DType::kF32, 2),
                   gates = random_gates(kTokens, kHeads, DType::kF32, 3);
      const auto fed = [&](int64_t count) {
        GatedCache cache = empty_cache(kHeads, window, kTokens, kD, DType::kF32, kCpuDevice);
        for (int64_t at = 0; at < kTokens; at += count) {
          const int64_t end = std::min(at + count, kTokens);
          cpu::gated_append(k.slice(0, at, end), v.slice(0, at, end), gates.slice(0, at, end),
                            cache);
        }
        return cache;
      };
      const GatedCache want = fed(1), got = fed(run);
      CHECK(bitwise_equal(got.keys.k, want.keys.k));
      CHECK(bitwise_equal(got.keys.v, want.keys.v));
      CHECK(bitwise_equal(got.keys.lengths, want.keys.lengths));
      CHECK(bitwise_equal(got.bits, want.bits));
    }
}

TEST_CASE("operations on pages refuse operands that do not fit and keys without a page") {
  GatedCache cache = empty_cache(2, 4, 20, 4, DType::kF32, kCpuDevice);
  const Tensor k = Tensor::zeros({60, 2, 4}, DType::kF32), gates = Tensor::zeros({60, 2}, DType::kF32);
  CHECK_THROWS_WITH_AS(cpu::gated_append(k, k, Tensor::zeros({60, 2}, DType::kF64), cache),
                       doctest::Contains("gates"), ShapeError);
  CHECK_THROWS_WITH_AS(cpu::gated_append(k.slice(1, 0, 1), k, gates, cache),
                       doctest::Contains("new k"), ShapeError);
  CHECK_THROWS_WITH_AS(cpu::gated_append(k, k, gates, cache),
                       doctest::Contains("key 48 of sequence 0 has no page"), Error);
  Tensor out = Tensor::empty({2, 3, 4}, DType::kF32), lse = Tensor::empty({2, 3}, DType::kF32);
  const Tensor q = Tensor::zeros({2, 3, 4}, DType::kF32);
  PagedKeys keys = cache.keys;
  CHECK_THROWS_WITH_AS(cpu::paged_attention(q, keys, 0, out, lse), doctest::Contains("scale > 0"),
                       ShapeError);
  keys.capacities = {20};
  CHECK_THROWS_WITH_AS(cpu::paged_attention(q, keys, 1, out, lse),
                       doctest::Contains("capacities of 2 sequences, got 1"), ShapeError);
  keys = cache.keys;
  keys.k = keys.k.reshape({-1, 8, 4});
  keys.v = keys.k;
  CHECK_THROWS_WITH_AS(cpu::paged_attention(q, keys, 1, out, lse),
                       doctest::Contains("power of two of at least 16 rows"), ShapeError);
}
