// Exchanges between ranks: what arrives, that every backward is the transpose, and that attention and
// recurrences over several ranks are those of one, in f64.
#include <doctest/doctest.h>

#include <mutex>

#include "autograd/engine.h"
#include "backend/elementwise.h"
#include "ops/attention.h"
#include "ops/elementwise.h"
#include "parallel/affine_scan.h"
#include "parallel/group_sum.h"
#include "parallel/head_exchange.h"
#include "support/compare.h"
#include "support/ranks.h"

using namespace lh;
using namespace lh::test;

namespace {

const std::vector<std::vector<int64_t>> kPackings = {
    {0, 37},               // one document
    {0, 5, 6, 30, 31, 53}, // packed, odd
    {0, 3},                // fewer rows than ranks may have
    {0, 1, 2, 64},
};

Tensor rows_of(const Tensor& whole, const RowSet& rows) {
  Shape shape = whole.shape();
  shape[0] = row_count(rows);
  Tensor result = Tensor::empty(shape, whole.dtype());
  int64_t at = 0;
  for (const RowRange& range : rows) {
    Tensor target = result.slice(0, at, at + range.count());
    cpu::copy(whole.slice(0, range.begin, range.end), target);
    at += range.count();
  }
  return result;
}

void check_near(const Tensor& got, const Tensor& want, double bound, const std::string& what) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  const auto a = to_doubles(got), b = to_doubles(want);
  REQUIRE_MESSAGE(a.size() == b.size(), what);
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(a[i] - b[i]));
  CHECK_MESSAGE(worst <= bound, what << ": " << worst);
}

template <typename F>
void for_each_layout(F&& function) {
  for (const int size : {1, 2, 4})
    for (const ContextOrder order : {ContextOrder::kContiguous, ContextOrder::kZigzag})
      for (const auto& offsets : kPackings) {
        on_ranks(size, [&](Peers& job) {
          const auto group = job.world("context");
          const ContextLayout layout(offsets, order, *group);
          function(layout);
        });
      }
}

}  // namespace

TEST_CASE("attention over gathered keys equals that of one process, forward and backward") {
  constexpr int64_t kHeads = 4, kKvHeads = 2, kWidth = 6;
  for_each_layout([&](const ContextLayout& layout) {
    const int64_t rows = layout.total_rows();
    const Tensor q = random_tensor({rows, kHeads, kWidth}, DType::kF64, 1),
                 k = random_tensor({rows, kKvHeads, kWidth}, DType::kF64, 2),
                 v = random_tensor({rows, kKvHeads, kWidth}, DType::kF64, 3),
                 d = random_tensor({rows, kHeads, kWidth}, DType::kF64, 4);
    for (const AttentionMask& mask : {AttentionMask{0, 0}, {4, 0}, {7, 2}, {100, 0}}) {
      const Variable wq = Variable::leaf(q), wk = Variable::leaf(k), wv = Variable::leaf(v);
      const Variable whole = attention(wq, wk, wv, layout.whole(mask, 0.4));
      backward(whole, d);
      const RowSet& mine = layout.held();
      const Variable lq = Variable::leaf(rows_of(q, mine)), lk = Variable::leaf(rows_of(k, mine)),
                     lv = Variable::leaf(rows_of(v, mine));
      const GatheredAttention& gathered = layout.gathered(mask, 0.4);
      const Variable out =
          attention(lq, exchange_rows(lk, gathered.exchange, layout.group(), "k"),
                    exchange_rows(lv, gathered.exchange, layout.group(), "v"), gathered.plan);
      check_near(out.value(), rows_of(whole.value(), mine), 1e-12, "out");
      backward(out, rows_of(d, mine));
      check_near(lq.grad(), rows_of(wq.grad(), mine), 1e-11, "dq");
      check_near(lk.grad(), rows_of(wk.grad(), mine), 1e-11, "dk");
      check_near(lv.grad(), rows_of(wv.grad(), mine), 1e-11, "dv");
    }
  });
}

TEST_CASE("attention over exchanged heads equals that of one process, forward and backward") {
  constexpr int64_t kHeads = 8, kKvHeads = 4, kWidth = 6;
  for_each_layout([&](const ContextLayout& layout) {
    const int64_t rows = layout.total_rows();
    const Tensor q = random_tensor({rows, kHeads, kWidth}, DType::kF64, 1),
                 k = random_tensor({rows, kKvHeads, kWidth}, DType::kF64, 2),
                 d = random_tensor({rows, kHeads, kWidth}, DType::kF64, 4);
    const Variable wq = Variable::leaf(q), wk = Variable::leaf(k);
    const auto plan = layout.whole({5, 1}, 0.4);
    const Variable whole = attention(wq, wk, wk, plan);
    backward(whole, d);
    const RowSet& mine = layout.held();
    const Variable lq = Variable::leaf(rows_of(q, mine)), lk = Variable::leaf(rows_of(k, mine));
    const Variable heads = rows_to_heads(lk, layout, "k");
    const Variable out = heads_to_rows(
        attention(rows_to_heads(lq, layout, "q"), heads, heads, plan), layout, "out");
    check_near(out.value(), rows_of(whole.value(), mine), 1e-12, "out");
    backward(out, rows_of(d, mine));
    check_near(lq.grad(), rows_of(wq.grad(), mine), 1e-11, "dq");
    check_near(lk.grad(), rows_of(wk.grad(), mine), 1e-11, "dk");
  });
}

TEST_CASE("heads that the group does not divide are refused") {
  on_ranks(2, [](Peers& job) {
    const auto group = job.world("context");
    const std::vector<int64_t> offsets{0, 8};
    const ContextLayout layout(offsets, ContextOrder::kZigzag, *group);
    try {
      rows_to_heads(Variable(Tensor::zeros({4, 3, 2}, DType::kF32)), layout, "q");
    } catch (const ShapeError& error) {
      if (std::string(error.what()).find("3 heads cannot be shared by 2") != std::string::npos) return;
    }
    throw Error("no refusal");
  });
}

TEST_CASE("a halo brings the rows to the left, of the same document only") {
  for_each_layout([&](const ContextLayout& layout) {
    const Tensor whole = random_tensor({layout.total_rows(), 2}, DType::kF64, 1);
    const auto halo = layout.halo(3);
    const Tensor got = gather_rows(rows_of(whole, layout.held()), *halo, layout.group(), "halo");
    std::vector<RowRange> wanted;
    for (const RowRange& range : layout.held())
      for (int64_t row = range.begin; row < range.end; ++row)
        for (const AttentionSegment& s : layout.whole_segments())
          if (row >= s.key_begin && row < s.key_begin + s.key_length)
            wanted.push_back({std::max(s.key_begin, row - 3), row + 1});
    check_near(got, rows_of(whole, unite(wanted)), 0, "halo");
  });
}

TEST_CASE("rows that travel are those the plan counts") {
  on_ranks(4, [](Peers& job) {
    const auto group = job.world("context");
    const std::vector<int64_t> offsets{0, 64};
    const ContextLayout layout(offsets, ContextOrder::kContiguous, *group);
    const Tensor x = Tensor::zeros({16, 5}, DType::kF32);
    const auto& exchange = *layout.gathered({0, 0}, 1).exchange;
    gather_rows(x, exchange, *group, "k");
    // Rank r sends its 16 rows to the ranks after it.
    const int64_t formula = (3 - job.rank()) * 16;
    if (exchange.rows_sent() != formula) throw Error("rows by the plan");
    if (group->traffic().all_to_all != formula * 5 * 4) throw Error("bytes by the communicator");
  });
}

TEST_CASE("a sum over the group has the sum of all gradients") {
  for (const int size : {1, 2, 3, 4})
    for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16})
      on_ranks(size, [&](Peers& job) {
        const auto group = job.world("context");
        // Quarters: exact in every dtype. Rank r's loss is the sum of (r + 1) s^2, so dx is 2 s sum_r (r + 1).
        const auto part = [&](int rank) {
          Tensor t = Tensor::empty({2, 3}, dtype);
          assign(t, std::vector<double>{0.25 * rank, 1, -0.5, 2, 0.75, -1.0 * rank});
          return t;
        };
        std::vector<double> sum(6), want;
        for (int r = 0; r < size; ++r) {
          const auto values = to_doubles(part(r));
          for (size_t i = 0; i < sum.size(); ++i) sum[i] += values[i];
        }
        for (const double s : sum) want.push_back(s * size * (size + 1));
        const Variable x = Variable::leaf(part(job.rank()));
        const Variable s = sum_over_group(x, *group, "statistics");
        Tensor seed = Tensor::empty({2, 3}, dtype), d = Tensor::empty({2, 3}, DType::kF64),
               total = Tensor::empty({2, 3}, DType::kF64);
        cpu::fill(seed, job.rank() + 1);
        backward(multiply(s, s), seed);
        assign(total, sum);
        assign(d, want);
        check_near(s.value(), total, 0, "sum");
        check_near(x.grad(), d, 0, "dx");
      });
}

TEST_CASE("states before each run are those of a sequential recurrence, and so are the gradients") {
  constexpr int64_t kHeads = 2, kRows = 3, kColumns = 4;
  const std::vector<std::vector<int64_t>> packings = {{0, 40}, {0, 37}, {0, 9, 10, 31, 45}};
  for (const int64_t transition_rank : {2, 3, 4})
    for (const int size : {1, 2, 3, 4})
      for (const auto& [order, offsets] : {std::pair{ContextOrder::kContiguous, packings[0]},
                                           {ContextOrder::kZigzag, packings[1]},
                                           {ContextOrder::kContiguous, packings[2]},
                                           {ContextOrder::kZigzag, packings[2]}}) {
        on_ranks(size, [&](Peers& job) {
          const auto group = job.world("context");
          const ContextLayout layout(offsets, order, *group);
          std::vector<RowRange> runs;
          for (const RowSet& held : layout.held_by_all()) runs.insert(runs.end(), held.begin(), held.end());
          std::sort(runs.begin(), runs.end(),
                    [](const RowRange& x, const RowRange& y) { return x.begin < y.begin; });
          const auto n = static_cast<int64_t>(runs.size());
          Shape shape{n, kHeads};
          if (transition_rank > 2) shape = {n, kHeads, kRows};
          if (transition_rank > 3) shape = {n, kHeads, kRows, kRows};
          Tensor a = random_tensor(shape, DType::kF64, 1, 0.7);
          // The state before a run is worth nothing where a document begins in the run.
          for (int64_t i = 0; i < n; ++i)
            for (const int64_t begin : offsets)
              if (begin >= runs[static_cast<size_t>(i)].begin && begin < runs[static_cast<size_t>(i)].end) {
                Tensor none = a.slice(0, i, i + 1);
                cpu::fill(none, 0);
              }
          const Tensor b = random_tensor({n, kHeads, kRows, kColumns}, DType::kF64, 2);
          const Tensor d = random_tensor(b.shape(), DType::kF64, 3);
          RowSet own;
          for (const RowRange& held : layout.held())
            for (int64_t i = 0; i < n; ++i)
              if (runs[static_cast<size_t>(i)] == held) own.push_back({i, i + 1});

          // The reference, with its gradient by central differences of sum(d * states).
          const auto states = [&](const std::vector<double>& va, const std::vector<double>& vb) {
            std::vector<double> s(vb.size());
            const size_t state = kRows * kColumns;
            for (int64_t j = 0; j + 1 < n; ++j)
              for (size_t h = 0; h < kHeads; ++h)
                for (size_t i = 0; i < kRows; ++i)
                  for (size_t c = 0; c < kColumns; ++c) {
                    const size_t item = static_cast<size_t>(j) * kHeads + h;
                    double sum = vb[item * state + i * kColumns + c];
                    for (size_t l = 0; l < kRows; ++l) {
                      const double factor = transition_rank == 4 ? va[(item * kRows + i) * kRows + l]
                                            : l != i             ? 0
                                            : transition_rank == 3 ? va[item * kRows + i]
                                                                   : va[item];
                      sum += factor * s[item * state + l * kColumns + c];
                    }
                    s[(item + kHeads) * state + i * kColumns + c] = sum;
                  }
            return s;
          };
          auto va = to_doubles(a), vb = to_doubles(b);
          const auto vd = to_doubles(d);
          const auto loss = [&] {
            const auto s = states(va, vb);
            double sum = 0;
            for (size_t i = 0; i < s.size(); ++i) sum += s[i] * vd[i];
            return sum;
          };
          const auto differences = [&](std::vector<double>& values, const Shape& like) {
            std::vector<double> gradient;
            for (double& value : values) {
              const double kept = value;
              value = kept + 1e-5;
              const double plus = loss();
              value = kept - 1e-5;
              gradient.push_back((plus - loss()) / 2e-5);
              value = kept;
            }
            Tensor t = Tensor::empty(like, DType::kF64);
            assign(t, gradient);
            return t;
          };
          Tensor want = Tensor::empty(b.shape(), DType::kF64);
          assign(want, states(va, vb));
          const Variable la = Variable::leaf(rows_of(a, own)), lb = Variable::leaf(rows_of(b, own));
          const Variable out = affine_exclusive_scan(la, lb, layout, "state");
          check_near(out.value(), rows_of(want, own), 1e-12, "states");
          backward(out, rows_of(d, own));
          check_near(lb.grad(), rows_of(differences(vb, b.shape()), own), 1e-8, "d contributions");
          check_near(la.grad(), rows_of(differences(va, a.shape()), own), 1e-8, "d transitions");
        });
      }
}
