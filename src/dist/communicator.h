// Collectives between processes. One algorithm for every transport: a collective is one or two exchanges in
// which each process sends bytes to some of the others, and sums are made by their owner in the order of the
// processes, in f32 for bf16. So results are the same bits on every process, at any time, on any transport.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "dist/comm_error.h"
#include "tensor/tensor.h"

namespace lh {

class JobBoard;

enum class ReduceOp : uint8_t { kSum, kMax };

/// One side of an exchange: bytes for or from a peer. In the memory of the transport's device.
struct Transfer {
  int peer = 0;
  char* data = nullptr;
  size_t bytes = 0;
};

/// Moves bytes; knows nothing of tensors. Each process gives what it sends and what it will receive, and the two
/// sides agree.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual const char* name() const = 0;
  /// True when messages lie in device memory, false for host memory.
  virtual bool on_device() const = 0;
  /// Nobody is there (dist/imagined.h): what arrives means nothing.
  virtual bool is_imagined() const { return false; }
  /// Completes both, on a device in the order of its stream. CommError names a peer that is gone or late.
  virtual void exchange(std::span<const Transfer> out, std::span<const Transfer> in) = 0;
  /// CommError when an exchange that had only been given to the device failed there: its results are none.
  virtual void check() {}
  /// From another thread: an exchange that waits, and all later ones, throw CommAbandoned.
  virtual void abandon() {}
};

/// Who sent how many bytes, by collective.
struct CommTraffic {
  int64_t all_reduce = 0, reduce_scatter = 0, all_gather = 0, all_to_all = 0, send = 0,
          broadcast = 0;
  int64_t total() const {
    return all_reduce + reduce_scatter + all_gather + all_to_all + send + broadcast;
  }
};

/// The same by kind ("all_reduce") and label of the collectives.
using LabelTraffic = std::map<std::pair<std::string, std::string>, int64_t>;

/// What the processes of a group do together, in one order on all of them. `label` says what for ("grad
/// all-reduce"), in errors and in the check that all are at the same place. Tensors are contiguous.
/// Not for several threads at once. CommError leaves the communicator of no use; every later call throws it
/// again.
class Communicator {
 public:
  /// `members`: ranks in the job, in the order of the group. `control` carries the checks in host memory, `data` the
  /// tensors; both may be one. Both number peers as the group does.
  Communicator(std::string group, int rank, std::vector<int> members,
               std::shared_ptr<Transport> control, std::shared_ptr<Transport> data,
               std::shared_ptr<JobBoard> board);
  ~Communicator();
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const { return rank_; }
  int size() const { return static_cast<int>(members_.size()); }
  const std::string& group() const { return group_; }

  /// t of every process becomes the sum or maximum over all. Any arithmetic dtype.
  void all_reduce(Tensor& t, ReduceOp op, const std::string& label);
  /// parts [size * n] of every process; out [n] = sum over processes of part `rank`.
  void reduce_scatter(const Tensor& parts, Tensor& out, const std::string& label);
  /// The same with parts of any sizes, in elements: out has counts[rank].
  void reduce_scatter_v(const Tensor& parts, std::span<const int64_t> counts, Tensor& out,
                        const std::string& label);
  /// out [size * n] = the processes' t [n], in order.
  void all_gather(const Tensor& t, Tensor& out, const std::string& label);
  /// The same with counts[r] elements of process r.
  void all_gather_v(const Tensor& t, std::span<const int64_t> counts, Tensor& out,
                    const std::string& label);
  /// Block r of `in` goes to process r, and block s of `out` comes from process s; equal blocks.
  void all_to_all(const Tensor& in, Tensor& out, const std::string& label);
  /// The same with blocks of any sizes, in elements, one behind the other.
  void all_to_all_v(const Tensor& in, std::span<const int64_t> in_counts, Tensor& out,
                    std::span<const int64_t> out_counts, const std::string& label);
  /// Sends `out` to process `to` while receiving `in` from `from`; either may be -1 for nothing. All
  /// processes of the group call it, so a ring cannot lock up.
  void send_receive(const Tensor& out, int to, Tensor& in, int from, const std::string& label);
  void broadcast(Tensor& t, int root, const std::string& label);
  void barrier(const std::string& label);
  /// Gives the group up, from any thread: a collective that waits ends with CommAbandoned.
  void abandon();

  /// How many collectives have begun; from any thread.
  uint64_t collectives() const { return sequence_; }
  /// Bytes this process has sent, checks not counted. For the thread of the collectives, as what follows.
  const CommTraffic& traffic() const { return traffic_; }
  const LabelTraffic& traffic_by_label() const { return by_label_; }
  /// The step that checks and errors name.
  void set_step(int64_t step) { step_ = step; }
 private:
  struct Header;
  /// Why a collective failed, as the whole job sees it: CommError on the process that is to tell, else PeerFailure.
  std::exception_ptr cause_of(const std::exception& symptom, const std::string& label);
  /// Elements that go to and come from each process, where those differ; else empty.
  struct PairCounts {
    std::span<const int64_t> sends, takes;
  };
  template <typename F>
  void collective(const char* kind, const Tensor& like, int64_t elements, const std::string& label,
                  F&& function, const PairCounts& pairs = {});
  void check_all_are_here(const Header& mine, const PairCounts& pairs);
  /// Host tensors take the way of the checks, device tensors that of the data.
  Transport* transport_of(const Tensor& t) const;
  /// Whether a transport of host memory serves this device tensor, through copies.
  bool stages(const Tensor& t) const;
  Tensor exchange_blocks(const Tensor& in, std::span<const int64_t> in_counts,
                         std::span<const int64_t> out_counts, int64_t& sent);
  void gather_blocks(const Tensor& t, std::span<const int64_t> counts, Tensor& out, int64_t& sent);
  void reduce_own(const Tensor& parts, std::span<const int64_t> counts, ReduceOp op, Tensor& out,
                  int64_t& sent);

  std::string group_;
  int rank_;
  std::vector<int> members_;
  std::shared_ptr<Transport> control_, data_;
  std::shared_ptr<JobBoard> board_;
  CommTraffic traffic_;
  LabelTraffic by_label_;
  std::atomic<uint64_t> sequence_ = 0;
  int64_t step_ = 0;
  std::exception_ptr failure_;
};

/// A group of one: every collective is a copy.
std::unique_ptr<Communicator> make_self_communicator();

}  // namespace lh
