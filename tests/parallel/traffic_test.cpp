// Bytes that processes send, counted while they train, against the closed forms of parallel/traffic.h and against
// row-by-row counts from the definition of each scheme.
#include <doctest/doctest.h>


#include <algorithm>

#include "autograd/engine.h"
#include "parallel/affine_scan.h"
#include "parallel/group_sum.h"
#include "parallel/head_exchange.h"
#include "parallel/traffic.h"
#include "support/compare.h"
#include "support/ranks.h"

using namespace lh;
using namespace lh::test;

namespace {

constexpr ContextOrder kOrders[] = {ContextOrder::kContiguous, ContextOrder::kZigzag};

/// Calls function(layout, sent) on 2, 3 and 4 processes in both orders; sent() is what the group has counted since the
/// last call.
template <typename F>
void for_each_group(const std::vector<int64_t>& offsets, F&& function) {
  for (const int ranks : {2, 3, 4})
    for (const ContextOrder order : kOrders)
      on_ranks(ranks, [&](Peers& job) {
        const auto group = job.world("context");
        const ContextLayout layout(offsets, order, *group);
        CommTraffic before;
        const auto sent = [&] {
          const int64_t bytes = group->traffic().total() - before.total();
          before = group->traffic();
          return bytes;
        };
        function(layout, order, sent);
      });
}

/// doctest's counters are not for several threads.
void expect(int64_t got, int64_t want, const char* what, int rank) {
  if (got != want)
    throw Error(fmt::format("{}, rank {}: {} bytes sent, the formula says {}", what, rank, got, want));
}

Variable rows(const ContextLayout& layout, int64_t heads, int64_t width, DType dtype) {
  return Variable::leaf(Tensor::zeros({row_count(layout.held()), heads, width}, dtype));
}

/// exchange_rows there and back, the bytes of it.
template <typename Sent>
int64_t there_and_back(const Variable& x, const ContextLayout& layout, const AttentionMask& mask,
                       const Sent& sent) {
  const Variable y = exchange_rows(x, layout.gathered(mask, 1).exchange, layout.group(), "rows");
  backward(y, Tensor::zeros(y.value().shape(), x.dtype()));
  return sent();
}

/// Owner of each row: pieces of a cut in 2n (n) parts, dealt from both ends (in order).
std::vector<int> owners(int64_t total, int ranks, ContextOrder order) {
  const int64_t pieces = order == ContextOrder::kZigzag ? 2 * ranks : ranks;
  std::vector<int> result;
  for (int64_t i = 0; i < pieces; ++i)
    for (int64_t row = total * i / pieces; row < total * (i + 1) / pieces; ++row)
      result.push_back(static_cast<int>(i < ranks ? i : pieces - 1 - i));
  return result;
}

/// Rows that `rank` sends forward plus those it sends a gradient for, by asking every pair of rows.
int64_t rows_by_pairs(const std::vector<int64_t>& offsets, int ranks, int rank, ContextOrder order,
                      const AttentionMask& mask) {
  const std::vector<int> owner = owners(offsets.back(), ranks, order);
  int64_t moved = 0;
  for (size_t s = 0; s + 1 < offsets.size(); ++s)
    for (int64_t key = offsets[s]; key < offsets[s + 1]; ++key) {
      std::vector<bool> sees(static_cast<size_t>(ranks), false);
      for (int64_t query = key; query < offsets[s + 1]; ++query)
        if (mask.window == 0 || query - key < mask.window || key - offsets[s] < mask.sinks)
          sees[static_cast<size_t>(owner[static_cast<size_t>(query)])] = true;
      const int home = owner[static_cast<size_t>(key)];
      for (int r = 0; r < ranks; ++r)
        if (r != home && sees[static_cast<size_t>(r)] && (home == rank || r == rank)) ++moved;
    }
  return moved;
}

const std::vector<std::vector<int64_t>> kPackings = {
    {0, 37}, {0, 64}, {0, 5, 6, 30, 31, 53}, {0, 3}, {0, 1, 2, 64}, {0, 16, 32, 48, 64}};

}  // namespace

TEST_CASE("gathering keys moves the rows that others see, and their gradients back") {
  constexpr int64_t kHeads = 2, kWidth = 6;
  for (const auto& offsets : kPackings)
    for (const DType dtype : {DType::kF32, DType::kBF16})
      for_each_group(offsets, [&](const ContextLayout& layout, ContextOrder order, const auto& sent) {
        const int n = layout.group().size(), r = layout.group().rank();
        const int64_t row = kHeads * kWidth * static_cast<int64_t>(dtype_size(dtype));
        const Variable k = rows(layout, kHeads, kWidth, dtype);
        for (const AttentionMask& mask : {AttentionMask{0, 0}, {4, 0}, {7, 2}, {1, 0}, {100, 1}})
          expect(there_and_back(k, layout, mask, sent),
                 row * rows_by_pairs(offsets, n, r, order, mask), "gather", r);
      });
}

TEST_CASE("gathering keys of one document follows the closed form") {
  for (const int64_t total : {8, 24, 37, 53, 96})
    for_each_group({0, total}, [&](const ContextLayout& layout, ContextOrder order, const auto& sent) {
      const int n = layout.group().size(), r = layout.group().rank();
      const Variable k = rows(layout, 3, 5, DType::kF32);
      const int64_t bytes = there_and_back(k, layout, {0, 0}, sent);
      expect(bytes, 4 * 15 * gather_rows_moved(total, n, r, order), "gather", r);
      if (order == ContextOrder::kZigzag && total % (2 * n) == 0)
        expect(bytes, 4 * 15 * 3 * total * (n - 1) / (2 * n), "zigzag, equal pieces", r);
    });
}

TEST_CASE("a window sends its reach to the right and the gradient to the left") {
  for (const int64_t window : {1, 2, 9})
    for (const int64_t total : {40, 53})
      for_each_group({0, total}, [&](const ContextLayout& layout, ContextOrder order, const auto& sent) {
        if (order != ContextOrder::kContiguous) return;
        const int r = layout.group().rank();
        const Variable k = rows(layout, 1, 4, DType::kF32);
        expect(there_and_back(k, layout, {window, 0}, sent),
               4 * 4 * halo_rows_moved(window, layout.group().size(), r), "halo", r);
      });
}

TEST_CASE("trading heads moves each row's heads to their owners, and back") {
  for (const auto& offsets : kPackings)
    for (const DType dtype : {DType::kF32, DType::kBF16})
      for_each_group(offsets, [&](const ContextLayout& layout, ContextOrder order, const auto& sent) {
        const int n = layout.group().size(), r = layout.group().rank();
        const int64_t heads = 2 * n, width = 5, total = offsets.back();
        const int64_t row = heads * width * static_cast<int64_t>(dtype_size(dtype));
        const auto count = owners(total, n, order);
        const int64_t mine = std::count(count.begin(), count.end(), r);
        expect(rows_of_rank(total, n, r, order), mine, "rows of a process", r);
        const Variable x = rows(layout, heads, width, dtype);
        const Variable there = rows_to_heads(x, layout, "x");
        // From first principles: (n - 1) / n of each row here leaves.
        expect(sent(), mine * row / n * (n - 1), "rows to heads", r);
        const Variable home = heads_to_rows(there, layout, "y");
        // Of each row of others, this process has 1 / n of the heads.
        expect(sent(), (total - mine) * row / n, "heads to rows", r);
        backward(home, Tensor::zeros(home.value().shape(), dtype));
        expect(sent(), mine * row / n * (n - 1) + (total - mine) * row / n, "back", r);
        expect(head_trade_bytes(total, n, r, order, row),
               row / n * (mine * (n - 1) + total - mine), "trade", r);
      });
}

TEST_CASE("a scan sends every run's transition and state once, and a gradient of the state") {
  constexpr int64_t kHeads = 2, kRows = 3, kColumns = 4;
  for (const int64_t total : {40, 53})
    for (const int64_t transition : {kHeads, kHeads * kRows, kHeads * kRows * kRows})
      for_each_group({0, total}, [&](const ContextLayout& layout, ContextOrder order, const auto& sent) {
        const int n = layout.group().size(), r = layout.group().rank();
        // The two pieces of the last process of a zigzag touch: they are one run.
        const int64_t runs = order == ContextOrder::kZigzag && r + 1 < n ? 2 : 1;
        Shape a{runs, kHeads};
        if (transition > kHeads) a = {runs, kHeads, kRows};
        if (transition > kHeads * kRows) a = {runs, kHeads, kRows, kRows};
        const Variable states = affine_exclusive_scan(
            Variable::leaf(Tensor::zeros(a, DType::kF32)),
            Variable::leaf(Tensor::zeros({runs, kHeads, kRows, kColumns}, DType::kF32)), layout, "s");
        backward(states, Tensor::zeros(states.value().shape(), DType::kF32));
        expect(sent(), affine_scan_bytes(runs, n, 4 * transition, 4 * kHeads * kRows * kColumns),
               "scan", r);
      });
}

TEST_CASE("an all-reduce sends every element to its owner and the owner's to all") {
  for (const int64_t elements : {0, 1, 2, 7, 64, 1001})
    for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16, DType::kI32})
      for_each_group({0, 8}, [&](const ContextLayout& layout, ContextOrder, const auto& sent) {
        const int n = layout.group().size(), r = layout.group().rank();
        Tensor t = Tensor::zeros({elements}, dtype);
        const auto width = static_cast<int64_t>(dtype_size(dtype));
        layout.group().all_reduce(t, ReduceOp::kSum, "sum");
        const int64_t bytes = sent();
        expect(bytes, all_reduce_bytes(elements, n, r, width), "all-reduce", r);
        if (elements % n == 0) expect(bytes, 2 * width * elements * (n - 1) / n, "equal parts", r);
        if (!is_floating(dtype)) return;
        const Variable s = sum_over_group(Variable::leaf(t), layout.group(), "statistics");
        backward(s, Tensor::zeros(s.shape(), dtype));
        expect(sent(), 2 * bytes, "sum over the group, there and back", r);
      });
}
