#include "parallel/head_exchange.h"

#include "backend/elementwise.h"

namespace lh {
namespace {

void copy_into(const Tensor& from, Tensor to) {
  if (from.numel() > 0) LH_DISPATCH(to.device(), "head_exchange", copy(from, to));
}

/// What one process sends to, or receives from, process r: rows of one side, heads of the other.
struct Group {
  explicit Group(const ContextLayout& layout)
      : comm(layout.group()), held(layout.held_by_all()), total(layout.total_rows()) {}
  int64_t rows(int r) const { return row_count(held[static_cast<size_t>(r)]); }

  Communicator& comm;
  std::vector<RowSet> held;  // a copy: backward may outlive the layout
  int64_t total;
};

Tensor to_heads(const Tensor& x, const Group& group, const std::string& label) {
  const int n = group.comm.size(), me = group.comm.rank();
  const int64_t heads = x.size(1) / n, d = x.size(2), mine = group.rows(me);
  Tensor packed = Tensor::empty({n, mine, heads, d}, x.dtype(), x.device());
  Tensor arrived = Tensor::empty({group.total, heads, d}, x.dtype(), x.device());
  std::vector<int64_t> sent, received;
  for (int r = 0; r < n; ++r) {
    copy_into(x.slice(1, r * heads, (r + 1) * heads),
              packed.slice(0, r, r + 1).reshape({mine, heads, d}));
    sent.push_back(mine * heads * d);
    received.push_back(group.rows(r) * heads * d);
  }
  group.comm.all_to_all_v(packed, sent, arrived, received, label);
  Tensor result = Tensor::empty(arrived.shape(), x.dtype(), x.device());
  int64_t at = 0;
  for (const RowSet& held : group.held)
    for (const RowRange& range : held) {
      copy_into(arrived.slice(0, at, at + range.count()), result.slice(0, range.begin, range.end));
      at += range.count();
    }
  return result;
}

Tensor to_rows(const Tensor& x, const Group& group, const std::string& label) {
  const int n = group.comm.size(), me = group.comm.rank();
  const int64_t heads = x.size(1), d = x.size(2), mine = group.rows(me);
  Tensor packed = Tensor::empty(x.shape(), x.dtype(), x.device());
  Tensor arrived = Tensor::empty({n, mine, heads, d}, x.dtype(), x.device());
  std::vector<int64_t> sent, received;
  int64_t at = 0;
  for (int r = 0; r < n; ++r) {
    for (const RowRange& range : group.held[static_cast<size_t>(r)]) {
      copy_into(x.slice(0, range.begin, range.end), packed.slice(0, at, at + range.count()));
      at += range.count();
    }
    sent.push_back(group.rows(r) * heads * d);
    received.push_back(mine * heads * d);
  }
  group.comm.all_to_all_v(packed, sent, arrived, received, label);
  Tensor result = Tensor::empty({mine, n * heads, d}, x.dtype(), x.device());
  for (int r = 0; r < n; ++r)
    copy_into(arrived.slice(0, r, r + 1).reshape({mine, heads, d}),
              result.slice(1, r * heads, (r + 1) * heads));
  return result;
}

}  // namespace

Variable rows_to_heads(const Variable& x, const ContextLayout& layout, const std::string& label) {
  const int n = layout.group().size();
  if (x.size(1) % n != 0)
    fail<ShapeError>("[rows_to_heads] {} heads cannot be shared by {} processes", x.size(1), n);
  const Group group(layout);
  return record("rows_to_heads", {x}, to_heads(x.value(), group, label),
                [group, label](Gradients& gradients) {
                  gradients.add(0, to_rows(gradients.output(), group, "d " + label));
                });
}

Variable heads_to_rows(const Variable& x, const ContextLayout& layout, const std::string& label) {
  const Group group(layout);
  return record("heads_to_rows", {x}, to_rows(x.value(), group, label),
                [group, label](Gradients& gradients) {
                  gradients.add(0, to_heads(gradients.output(), group, "d " + label));
                });
}

}  // namespace lh
