#include "parallel/row_exchange.h"

#include "backend/elementwise.h"

namespace lh {
namespace {

/// The places of `rows`, a subset of `all`, in the list of all's rows.
RowSet local_ranges(const RowSet& all, const RowSet& rows) {
  RowSet result;
  for (const RowRange& range : rows) {
    const int64_t first = index_of(all, range.begin);
    result.push_back({first, first + range.count()});
  }
  return result;
}

Tensor rows_like(const Tensor& x, int64_t rows, DType dtype) {
  Shape shape = x.shape();
  shape[0] = rows;
  return Tensor::empty(shape, dtype, x.device());
}

int64_t row_elements(const Tensor& x) {
  int64_t product = 1;
  for (int dim = 1; dim < x.rank(); ++dim) product *= x.size(dim);
  return product;
}

void copy_rows(const Tensor& from, const RowRange& source, Tensor& to, int64_t to_row) {
  Tensor target = to.slice(0, to_row, to_row + source.count());
  LH_DISPATCH(to.device(), "exchange_rows", copy(from.slice(0, source.begin, source.end), target));
}

/// Sends the ranges `out(r)` of x to each other process r, and returns what `in(r)` says arrives,
/// ordered by sender.
template <typename Out, typename In>
Tensor transfer(const Tensor& x, const RowExchange& exchange, const Out& out, const In& in,
                Communicator& group, const std::string& label) {
  const int64_t row = row_elements(x);
  std::vector<int64_t> sent, received;
  int64_t rows_out = 0, rows_in = 0;
  for (int r = 0; r < exchange.ranks(); ++r) {
    const bool other = r != exchange.rank();
    sent.push_back(other ? row_count(out(r)) * row : 0);
    received.push_back(other ? row_count(in(r)) * row : 0);
    rows_out += other ? row_count(out(r)) : 0;
    rows_in += other ? row_count(in(r)) : 0;
  }
  Tensor packed = rows_like(x, rows_out, x.dtype());
  int64_t at = 0;
  for (int r = 0; r < exchange.ranks(); ++r) {
    if (r == exchange.rank()) continue;
    for (const RowRange& range : out(r)) {
      copy_rows(x, range, packed, at);
      at += range.count();
    }
  }
  Tensor arrived = rows_like(x, rows_in, x.dtype());
  group.all_to_all_v(packed, sent, arrived, received, label);
  return arrived;
}

/// The transpose of exchange_rows: gradients of needed rows go home and add up there.
Tensor return_rows(const Tensor& gradient, const RowExchange& exchange, Communicator& group,
                   const std::string& label) {
  const Tensor arrived = transfer(
      gradient, exchange, [&](int r) -> const RowSet& { return exchange.received(r); },
      [&](int r) -> const RowSet& { return exchange.sent(r); }, group, label);
  const DType wide = gradient.dtype() == DType::kF64 ? DType::kF64 : DType::kF32;
  Tensor sum = rows_like(gradient, exchange.held_rows(), wide);
  LH_DISPATCH(sum.device(), "exchange_rows", fill(sum, 0));
  const auto add_rows = [&](const Tensor& from, const RowRange& source, int64_t to_row) {
    Tensor part = rows_like(from, source.count(), wide);
    copy_rows(from, source, part, 0);
    Tensor target = sum.slice(0, to_row, to_row + source.count());
    LH_DISPATCH(sum.device(), "exchange_rows", add_scaled(target, 1, part, 1, target));
  };
  int64_t at = 0;
  for (int r = 0; r < exchange.ranks(); ++r) {
    const RowSet& home = exchange.sent(r);
    const RowSet& here = exchange.received(exchange.rank());
    for (size_t i = 0; i < home.size(); ++i) {
      if (r == exchange.rank()) {
        add_rows(gradient, here[i], home[i].begin);
      } else {
        add_rows(arrived, {at, at + home[i].count()}, home[i].begin);
        at += home[i].count();
      }
    }
  }
  if (wide == gradient.dtype()) return sum;
  Tensor rounded = rows_like(sum, exchange.held_rows(), gradient.dtype());
  LH_DISPATCH(sum.device(), "exchange_rows", copy(sum, rounded));
  return rounded;
}

}  // namespace

RowExchange::RowExchange(const std::vector<RowSet>& held, const std::vector<RowSet>& needed,
                         int rank)
    : rank_(rank),
      held_rows_(row_count(held[static_cast<size_t>(rank)])),
      needed_rows_(row_count(needed[static_cast<size_t>(rank)])) {
  const RowSet& mine = held[static_cast<size_t>(rank)];
  const RowSet& wanted = needed[static_cast<size_t>(rank)];
  int64_t found = 0;
  for (size_t r = 0; r < held.size(); ++r) {
    sent_.push_back(local_ranges(mine, intersect(mine, needed[r])));
    received_.push_back(local_ranges(wanted, intersect(held[r], wanted)));
    found += row_count(received_.back());
  }
  LH_CHECK(found == needed_rows_, "[exchange_rows] {} rows are needed, {} of them are held", needed_rows_,
           found);
}

int64_t RowExchange::rows_sent() const {
  int64_t rows = 0;
  for (int r = 0; r < ranks(); ++r)
    if (r != rank_) rows += row_count(sent(r));
  return rows;
}

Tensor gather_rows(const Tensor& x, const RowExchange& exchange, Communicator& group,
                   const std::string& label) {
  if (x.size(0) != exchange.held_rows())
    fail<ShapeError>("[exchange_rows] this process holds {} rows, got {}", exchange.held_rows(),
                     x.str());
  const Tensor arrived = transfer(
      x, exchange, [&](int r) -> const RowSet& { return exchange.sent(r); },
      [&](int r) -> const RowSet& { return exchange.received(r); }, group, label);
  Tensor result = rows_like(x, exchange.needed_rows(), x.dtype());
  int64_t at = 0;
  for (int r = 0; r < exchange.ranks(); ++r) {
    const RowSet& places = exchange.received(r);
    for (size_t i = 0; i < places.size(); ++i) {
      if (r == exchange.rank()) {
        copy_rows(x, exchange.sent(r)[i], result, places[i].begin);
      } else {
        copy_rows(arrived, {at, at + places[i].count()}, result, places[i].begin);
        at += places[i].count();
      }
    }
  }
  return result;
}

Variable exchange_rows(const Variable& x, std::shared_ptr<const RowExchange> exchange,
                       Communicator& group, const std::string& label) {
  const Tensor result = gather_rows(x.value(), *exchange, group, label);
  return record("exchange_rows", {x}, result,
                [exchange = std::move(exchange), &group, label](Gradients& gradients) {
                  gradients.add(0, return_rows(gradients.output(), *exchange, group, "d " + label));
                });
}

}  // namespace lh
