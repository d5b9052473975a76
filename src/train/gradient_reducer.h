// Gradients of a step, summed over the processes in buckets: over all of each where every process updates every
// parameter, over the owners' parts where they share the optimizer (optim/shards.h).
#pragma once

#include <memory>
#include <unordered_map>
#include <vector>

#include "autograd/engine.h"
#include "backend/reduce.h"
#include "optim/optimizer.h"
#include "train/ordered_thread.h"
#include "train/side_work.h"
#include "train/team.h"

namespace lh {

class GradientReducer {
 public:
  /// `optimizer` says whether the processes share it; then they are its owners. All of `team` make one together.
  /// A bucket is large enough that latency does not matter, and small beside the model.
  GradientReducer(const Team& team, const ParameterStore& store, const Optimizer& optimizer,
                  int64_t bucket_bytes = int64_t{25} << 20);

  /// For the last backward() of a step: buckets leave, on another thread and stream, as their gradients become final. In
  /// their own order, whatever the order of that, so on all processes alike. Null where the team does not
  /// overlap.
  const BackwardWatch* watch() { return thread_ != nullptr ? &watch_ : nullptr; }

  /// Waits for the buckets that left and sums the others. Gradients become the sums over all processes, made in
  /// the order of the processes: whole, or the part that this process owns and the rest is left as it was. A
  /// parameter that met no row here has one where it met some elsewhere, and none where it met none anywhere.
  /// CommError.
  void sum();

  /// out [1] f64 = squared norm of the summed gradients, the same bits on all processes and whether or not they
  /// share the optimizer: owners' sums, added in their order.
  void squared_norm(Tensor& out);

  /// After an update of the parts: every process gets all of every parameter, as ops read it.
  void share_parameters();

 private:
  struct Bucket {
    explicit Bucket(Device device) : ready(device) {}
    std::vector<size_t> parameters;
    std::vector<size_t> met;  // those with a gradient on some process
    int64_t missing = 0;      // gradients of this process that are not final yet
    StreamFence ready;        // behind what made those gradients
  };
  /// Calls function(index, part) for what an owner has of these parameters, all of them unless they are shared.
  template <typename F>
  void each_part(const std::vector<size_t>& parameters, int owner, F&& function) const;
  /// How many elements each owner has of them.
  std::vector<int64_t> counts(const std::vector<size_t>& parameters) const;
  std::vector<size_t> with_gradients(const Bucket& bucket, Communicator& processes) const;
  void sum(Bucket& bucket, Communicator& processes);
  /// Lets buckets go up to the first that lacks a gradient.
  void release();
  Parameter& parameter(size_t index) const { return *store_.all()[index]; }

  const Team& team_;
  const ParameterStore& store_;
  const Shards shards_;  // of as many owners as processes, even where they do not share the optimizer
  const bool shared_;
  std::vector<Bucket> buckets_;
  std::vector<TensorList> owned_;  // gradients by owner, for the norm

  std::unordered_map<const LeafGradient*, size_t> bucket_of_;
  size_t released_ = 0;  // buckets
  StreamFence summed_;   // behind all sums of a round
  BackwardWatch watch_;
  std::unique_ptr<OrderedThread> thread_;  // last: it ends first
};

}  // namespace lh
