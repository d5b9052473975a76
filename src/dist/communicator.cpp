#include "dist/communicator.h"

#include <cstring>
#include <numeric>
#include <utility>

#include <fmt/format.h>

#include "backend/elementwise.h"
#include "dist/job_board.h"

namespace lh {

/// What each process tells its right neighbour before a collective moves anything. Where any two processes
/// differ, some two neighbours do. Where counts differ from pair to pair, it tells every process how many elements
/// it sends there.
struct Communicator::Header {
  uint64_t sequence = 0;
  int64_t step = 0, elements = 0;
  uint8_t dtype = 0;
  char kind[23] = {};
  char label[80] = {};

  std::string str() const {
    return fmt::format("'{}' ({} number {} of the group, step {}, {} {})", label, kind, sequence,
                       step, elements, dtype_name(static_cast<DType>(dtype)));
  }
};

namespace {

/// Larger groups check the counts of neighbours alone: as many small messages as processes, for each collective, would
/// take longer than what they guard.
constexpr int kAllPairsAreChecked = 16;

/// Processes came to different collectives, and the message says to which.
class Mismatch : public CommError {
 public:
  using CommError::CommError;
};

/// Where element `at` of a contiguous tensor lies; nowhere on the meta device.
char* place_of(const Tensor& t, int64_t at) {
  if (t.device().is_meta()) return nullptr;
  return t.raw() + at * static_cast<int64_t>(dtype_size(t.dtype()));
}

int64_t sum(std::span<const int64_t> counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

/// Elements [begin, begin + count) of a contiguous tensor, as a vector.
Tensor part(const Tensor& t, int64_t begin, int64_t count) {
  return t.reshape({t.numel()}).slice(0, begin, begin + count);
}

void check_elements(const Tensor& t, int64_t elements, const char* what) {
  if (!t.is_contiguous() || t.numel() != elements)
    fail<ShapeError>("[dist] {}: expected {} contiguous elements, got {}", what, elements, t.str());
}

template <size_t kSize>
void put(char (&to)[kSize], const std::string& text) {
  std::strncpy(to, text.c_str(), kSize - 1);
}

/// The dtype in which contributions are added.
DType wide_dtype(DType dtype) {
  return dtype == DType::kBF16 ? DType::kF32 : dtype;
}

template <typename T>
void combine(const T* from, T* to, int64_t n, ReduceOp op) {
  for (int64_t i = 0; i < n; ++i)
    to[i] = op == ReduceOp::kSum ? to[i] + from[i] : std::max(to[i], from[i]);
}

/// to = to op from, in to's dtype.
void combine(const Tensor& from, Tensor& to, ReduceOp op) {
  Tensor same = from;
  if (from.dtype() != to.dtype()) {
    same = Tensor::empty(from.shape(), to.dtype(), to.device());
    LH_DISPATCH(to.device(), "dist", copy(from, same));
  }
  if (op == ReduceOp::kSum && is_floating(to.dtype())) {
    LH_DISPATCH(to.device(), "dist", add_scaled(to, 1, same, 1, to));
    return;
  }
  // Counters and flags: small, so the host does them.
  Tensor host = to.to(kCpuDevice);
  const Tensor other = same.to(kCpuDevice);
  switch (to.dtype()) {
    case DType::kF32: combine(other.data<float>(), host.data<float>(), host.numel(), op); break;
    case DType::kF64: combine(other.data<double>(), host.data<double>(), host.numel(), op); break;
    case DType::kI32: combine(other.data<int32_t>(), host.data<int32_t>(), host.numel(), op); break;
    case DType::kI64: combine(other.data<int64_t>(), host.data<int64_t>(), host.numel(), op); break;
    default: fail<ShapeError>("[dist] {} cannot be reduced", to.str());
  }
  if (!to.device().is_cpu()) to.copy_bytes_from(host);
}

}  // namespace

Communicator::Communicator(std::string group, int rank, std::vector<int> members,
                           std::shared_ptr<Transport> control, std::shared_ptr<Transport> data,
                           std::shared_ptr<JobBoard> board)
    : group_(std::move(group)),
      rank_(rank),
      members_(std::move(members)),
      control_(std::move(control)),
      data_(std::move(data)),
      board_(std::move(board)) {}

Communicator::~Communicator() {
  if (failure_ != nullptr) abandon();  // nobody is there to take leave of
}

template <typename F>
void Communicator::collective(const char* kind, const Tensor& like, int64_t elements,
                              const std::string& label, F&& function, const PairCounts& pairs) {
  if (failure_ != nullptr) std::rethrow_exception(failure_);
  if (size() == 1) return function();
  Header header;
  header.sequence = sequence_++;
  header.step = step_;
  header.elements = elements;
  header.dtype = static_cast<uint8_t>(like.dtype());
  put(header.kind, kind);
  put(header.label, label);
  board_->set_place(fmt::format("{}, step {}", label, step_), true, group_);
  try {
    data_->check();
    check_all_are_here(header, pairs);
    const int64_t before = traffic_.total();
    function();
    by_label_[{kind, label}] += traffic_.total() - before;
  } catch (const ShapeError&) {
    throw;
  } catch (const CommAbandoned&) {
    failure_ = std::current_exception();  // why is known to who gave it up
    throw;
  } catch (const std::exception& error) {
    failure_ = cause_of(error, label);
    std::rethrow_exception(failure_);
  }
  board_->set_place("between collectives", false, group_);
}

std::exception_ptr Communicator::cause_of(const std::exception& symptom, const std::string& label) {
  const std::string where = fmt::format("in {}, step {}", label, step_);
  try {
    auto known = board_->failure();
    if (!known) {
      std::string cause = symptom.what();
      if (dynamic_cast<const Mismatch*>(&symptom) == nullptr) {
        // A connection that breaks or is silent says little: whoever no longer posts is the cause.
        std::string lost;
        for (const int r : board_->gone()) lost += (lost.empty() ? "" : ", ") + board_->name_of(r);
        cause = lost.empty() ? fmt::format("{} {}: {}", cause, where, board_->places())
                             : fmt::format("lost {} {}: dead, stopped or cut off", lost, where);
      }
      known = board_->report_failure(cause);
      if (known->rank == members_[static_cast<size_t>(rank_)])
        return std::make_exception_ptr(CommError(known->reason));
    }
    return std::make_exception_ptr(PeerFailure(known->reason, known->exit_code));
  } catch (const CommError& store) {
    return std::make_exception_ptr(
        CommError(fmt::format("lost rank 0, which serves the job's store, {}: {}", where, store.what())));
  }
}

void Communicator::check_all_are_here(const Header& mine, const PairCounts& pairs) {
  const int n = size();
  std::vector<int> to = {(rank_ + 1) % n}, from = {(rank_ + n - 1) % n};
  if (!pairs.sends.empty() && n <= kAllPairsAreChecked) {
    to.clear();
    for (int r = 0; r < n; ++r)
      if (r != rank_) to.push_back(r);
    from = to;
  }
  std::vector<Header> told(to.size(), mine), heard(from.size());
  std::vector<Transfer> out, in;
  for (size_t i = 0; i < to.size(); ++i) {
    if (!pairs.sends.empty()) told[i].elements = pairs.sends[static_cast<size_t>(to[i])];
    out.push_back({to[i], reinterpret_cast<char*>(&told[i]), sizeof(Header)});
    in.push_back({from[i], reinterpret_cast<char*>(&heard[i]), sizeof(Header)});
  }
  control_->exchange(out, in);
  if (control_->is_imagined()) return;
  const auto name = [&](int r) { return board_->name_of(members_[static_cast<size_t>(r)]); };
  for (size_t i = 0; i < from.size(); ++i) {
    Header expected = mine;
    if (!pairs.takes.empty()) expected.elements = pairs.takes[static_cast<size_t>(from[i])];
    const int64_t elements = std::exchange(heard[i].elements, expected.elements);
    const bool same_place = std::memcmp(&heard[i], &expected, sizeof(Header)) == 0;
    heard[i].elements = elements;
    if (same_place && elements == expected.elements) continue;
    if (same_place && !pairs.takes.empty())
      fail<Mismatch>("[dist] processes of group {} disagree: {} is in {} for {}, which expects {} elements from it",
                     group_, name(from[i]), heard[i].str(), name(rank_), expected.elements);
    fail<Mismatch>("[dist] processes of group {} are at different places: {} is in {}, {} in {}", group_,
                   name(from[i]), heard[i].str(), name(rank_), expected.str());
  }
}

Transport* Communicator::transport_of(const Tensor& t) const {
  return t.device().is_cpu() ? control_.get() : data_.get();
}

bool Communicator::stages(const Tensor& t) const {
  return size() > 1 && !t.device().is_cpu() && !data_->on_device();
}

Tensor Communicator::exchange_blocks(const Tensor& in, std::span<const int64_t> in_counts,
                                     std::span<const int64_t> out_counts, int64_t& sent) {
  Tensor out = Tensor::empty({sum(out_counts)}, in.dtype(), in.device());
  const bool staged = stages(in);
  const Tensor source = staged ? in.to(kCpuDevice) : in;
  Tensor target = staged ? Tensor::empty(out.shape(), out.dtype()) : out;
  const auto width = static_cast<int64_t>(dtype_size(in.dtype()));
  std::vector<Transfer> sends, receives;
  int64_t from = 0, to = 0, own_from = 0, own_to = 0;
  for (int r = 0; r < size(); ++r) {
    const int64_t send = in_counts[static_cast<size_t>(r)], take = out_counts[static_cast<size_t>(r)];
    if (r == rank_) {
      own_from = from, own_to = to;
    } else {
      if (send > 0)
        sends.push_back({r, place_of(source, from), static_cast<size_t>(send * width)});
      if (take > 0)
        receives.push_back({r, place_of(target, to), static_cast<size_t>(take * width)});
      sent += send * width;
    }
    from += send, to += take;
  }
  if (size() > 1) transport_of(in)->exchange(sends, receives);
  const int64_t own = in_counts[static_cast<size_t>(rank_)];
  if (own > 0) {
    Tensor place = part(target, own_to, own);
    LH_DISPATCH(place.device(), "dist", copy(part(source, own_from, own), place));
  }
  if (staged) out.copy_bytes_from(target);
  return out;
}

void Communicator::gather_blocks(const Tensor& t, std::span<const int64_t> counts, Tensor& out,
                                 int64_t& sent) {
  const bool staged = stages(t);
  const Tensor source = staged ? t.to(kCpuDevice) : t;
  Tensor target = staged ? Tensor::empty(out.shape(), out.dtype()) : out;
  const auto width = static_cast<int64_t>(dtype_size(t.dtype()));
  std::vector<Transfer> sends, receives;
  int64_t at = 0;
  for (int r = 0; r < size(); ++r) {
    const int64_t count = counts[static_cast<size_t>(r)];
    if (r == rank_) {
      if (count > 0) {
        Tensor place = part(target, at, count);
        LH_DISPATCH(place.device(), "dist", copy(part(source, 0, count), place));
      }
    } else {
      if (t.numel() > 0) sends.push_back({r, place_of(source, 0), source.bytes()});
      if (count > 0)
        receives.push_back({r, place_of(target, at), static_cast<size_t>(count * width)});
      sent += static_cast<int64_t>(source.bytes());
    }
    at += count;
  }
  if (size() > 1) transport_of(t)->exchange(sends, receives);
  if (staged) out.copy_bytes_from(target);
}

void Communicator::reduce_own(const Tensor& parts, std::span<const int64_t> counts, ReduceOp op,
                              Tensor& out, int64_t& sent) {
  const int64_t own = counts[static_cast<size_t>(rank_)];
  const std::vector<int64_t> arriving(static_cast<size_t>(size()), own);
  const Tensor all = exchange_blocks(parts, counts, arriving, sent);
  Tensor sum = Tensor::empty({own}, wide_dtype(parts.dtype()), parts.device());
  if (own > 0) {
    LH_DISPATCH(sum.device(), "dist", copy(part(all, 0, own), sum));
    for (int r = 1; r < size(); ++r) combine(part(all, r * own, own), sum, op);
  }
  Tensor flat = out.reshape({own});
  LH_DISPATCH(flat.device(), "dist", copy(sum, flat));
}

void Communicator::all_reduce(Tensor& t, ReduceOp op, const std::string& label) {
  check_elements(t, t.numel(), "all_reduce");
  collective("all_reduce", t, t.numel(), label, [&] {
    if (size() == 1) return;
    std::vector<int64_t> counts;
    for (int r = 0; r < size(); ++r)
      counts.push_back(t.numel() * (r + 1) / size() - t.numel() * r / size());
    Tensor own = Tensor::empty({counts[static_cast<size_t>(rank_)]}, t.dtype(), t.device());
    reduce_own(t, counts, op, own, traffic_.all_reduce);
    gather_blocks(own, counts, t, traffic_.all_reduce);
  });
}

void Communicator::reduce_scatter(const Tensor& parts, Tensor& out, const std::string& label) {
  const std::vector<int64_t> counts(static_cast<size_t>(size()), out.numel());
  reduce_scatter_v(parts, counts, out, label);
}

void Communicator::reduce_scatter_v(const Tensor& parts, std::span<const int64_t> counts,
                                    Tensor& out, const std::string& label) {
  check_elements(parts, sum(counts), "reduce_scatter: parts");
  check_elements(out, counts[static_cast<size_t>(rank_)], "reduce_scatter: out");
  check_dtype(out, parts.dtype(), "reduce_scatter", "out");
  collective("reduce_scatter", parts, parts.numel(), label,
             [&] { reduce_own(parts, counts, ReduceOp::kSum, out, traffic_.reduce_scatter); });
}

void Communicator::all_gather(const Tensor& t, Tensor& out, const std::string& label) {
  const std::vector<int64_t> counts(static_cast<size_t>(size()), t.numel());
  all_gather_v(t, counts, out, label);
}

void Communicator::all_gather_v(const Tensor& t, std::span<const int64_t> counts, Tensor& out,
                                const std::string& label) {
  check_elements(t, counts[static_cast<size_t>(rank_)], "all_gather: t");
  check_elements(out, sum(counts), "all_gather: out");
  check_dtype(out, t.dtype(), "all_gather", "out");
  collective("all_gather", t, out.numel(), label,
             [&] { gather_blocks(t, counts, out, traffic_.all_gather); });
}

void Communicator::all_to_all(const Tensor& in, Tensor& out, const std::string& label) {
  if (in.numel() % size() != 0)
    fail<ShapeError>("[dist] all_to_all: {} cannot be cut into {} equal blocks", in.str(), size());
  const std::vector<int64_t> counts(static_cast<size_t>(size()), in.numel() / size());
  all_to_all_v(in, counts, out, counts, label);
}

void Communicator::all_to_all_v(const Tensor& in, std::span<const int64_t> in_counts, Tensor& out,
                                std::span<const int64_t> out_counts, const std::string& label) {
  check_elements(in, sum(in_counts), "all_to_all: in");
  check_elements(out, sum(out_counts), "all_to_all: out");
  check_dtype(out, in.dtype(), "all_to_all", "out");
  const auto exchange = [&] {
    const Tensor arrived = exchange_blocks(in, in_counts, out_counts, traffic_.all_to_all);
    Tensor flat = out.reshape({out.numel()});
    LH_DISPATCH(flat.device(), "dist", copy(arrived, flat));
  };
  collective("all_to_all", in, 0, label, exchange, {in_counts, out_counts});
}

void Communicator::send_receive(const Tensor& out, int to, Tensor& in, int from,
                                const std::string& label) {
  const Tensor& like = to >= 0 ? out : in;
  std::vector<int64_t> sends(static_cast<size_t>(size())), takes(static_cast<size_t>(size()));
  if (to >= 0) sends[static_cast<size_t>(to)] = out.numel();
  if (from >= 0) takes[static_cast<size_t>(from)] = in.numel();
  const auto exchange = [&] {
    const Tensor nothing = Tensor::empty({0}, like.dtype(), like.device());
    const Tensor arrived =
        exchange_blocks(to >= 0 ? out : nothing, sends, takes, traffic_.send);
    if (from < 0) return;
    Tensor flat = in.reshape({in.numel()});
    LH_DISPATCH(flat.device(), "dist", copy(arrived, flat));
  };
  collective("send", like, 0, label, exchange, {sends, takes});
}

void Communicator::broadcast(Tensor& t, int root, const std::string& label) {
  check_elements(t, t.numel(), "broadcast");
  collective("broadcast", t, t.numel(), label, [&] {
    if (size() == 1) return;
    std::vector<int64_t> counts(static_cast<size_t>(size()));
    counts[static_cast<size_t>(root)] = t.numel();
    const Tensor own = rank_ == root ? t : Tensor::empty({0}, t.dtype(), t.device());
    Tensor all = Tensor::empty({t.numel()}, t.dtype(), t.device());
    gather_blocks(own, counts, all, traffic_.broadcast);
    Tensor flat = t.reshape({t.numel()});
    if (rank_ != root) LH_DISPATCH(flat.device(), "dist", copy(all, flat));
  });
}

void Communicator::barrier(const std::string& label) {
  Tensor one = Tensor::zeros({1}, DType::kI32);
  collective("barrier", one, 1, label, [&] {
    if (size() == 1) return;
    // Through host memory whatever the data's transport: everyone hears of everyone.
    std::vector<char> mine(1), theirs(static_cast<size_t>(size()));
    std::vector<Transfer> out, in;
    for (int r = 0; r < size(); ++r) {
      if (r == rank_) continue;
      out.push_back({r, mine.data(), 1});
      in.push_back({r, &theirs[static_cast<size_t>(r)], 1});
    }
    control_->exchange(out, in);
  });
}

void Communicator::abandon() {
  if (control_ != nullptr) control_->abandon();
  if (data_ != control_) data_->abandon();
}

std::unique_ptr<Communicator> make_self_communicator() {
  return std::make_unique<Communicator>("self", 0, std::vector<int>{0}, nullptr, nullptr, nullptr);
}

}  // namespace lh
