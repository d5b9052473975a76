#include "parallel/affine_scan.h"

#include <algorithm>

#include "backend/elementwise.h"
#include "backend/recurrent.h"

namespace lh {
namespace {

/// All processes' runs in the order of their rows, as rows of an exchange that brings all to all.
std::shared_ptr<const RowExchange> all_runs(const ContextLayout& layout) {
  std::vector<int64_t> begins;
  for (const RowSet& held : layout.held_by_all())
    for (const RowRange& run : held) begins.push_back(run.begin);
  std::sort(begins.begin(), begins.end());
  std::vector<RowSet> runs;
  for (const RowSet& held : layout.held_by_all()) {
    RowSet mine;
    for (const RowRange& run : held) {
      const auto place = std::lower_bound(begins.begin(), begins.end(), run.begin) - begins.begin();
      mine.push_back({place, place + 1});
    }
    runs.push_back(std::move(mine));
  }
  const RowSet all = unite({{0, static_cast<int64_t>(begins.size())}});
  return std::make_shared<const RowExchange>(runs, std::vector<RowSet>(runs.size(), all),
                                             layout.group().rank());
}

/// This process's runs among all.
Tensor own_runs(const Tensor& all, const RowExchange& exchange) {
  Shape shape = all.shape();
  shape[0] = exchange.held_rows();
  Tensor own = Tensor::empty(shape, all.dtype(), all.device());
  int64_t at = 0;
  for (const RowRange& range : exchange.received(exchange.rank())) {
    Tensor target = own.slice(0, at, at + range.count());
    LH_DISPATCH(all.device(), "affine_scan", copy(all.slice(0, range.begin, range.end), target));
    at += range.count();
  }
  return own;
}

}  // namespace

Variable affine_exclusive_scan(const Variable& a, const Variable& b, const ContextLayout& layout,
                               const std::string& label) {
  Communicator& group = layout.group();
  const auto exchange = all_runs(layout);
  const Tensor transitions = gather_rows(a.value(), *exchange, group, label + " transitions");
  const Tensor contributions = gather_rows(b.value(), *exchange, group, label + " states");
  Tensor states = Tensor::empty_like(contributions);
  LH_DISPATCH(b.device(), "affine_scan", affine_fold(transitions, contributions, false, states));
  return record(
      "affine_exclusive_scan", {a, b}, own_runs(states, *exchange),
      [exchange, &group, label, transitions, states](Gradients& gradients) {
        const Tensor d_states =
            gather_rows(gradients.output(), *exchange, group, "d " + label + " states");
        Tensor after = Tensor::empty_like(states);  // gradient of the state after each run
        LH_DISPATCH(states.device(), "affine_scan",
                    affine_fold(transitions, d_states, true, after));
        gradients.add(1, own_runs(after, *exchange));
        if (!gradients.wants(0)) return;
        Tensor d_transitions = Tensor::empty_like(transitions);
        LH_DISPATCH(states.device(), "affine_scan",
                    affine_transition_gradient(after, states, d_transitions));
        gradients.add(0, own_runs(d_transitions, *exchange));
      });
}

}  // namespace lh
