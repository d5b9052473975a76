// The processes that train one model together: a mesh of `data` groups, which take different sequences, of
// `context` processes, which share them. A team of one works without any of it.
#pragma once

#include <memory>
#include <string>

#include "config/recipe.h"
#include "data/batcher.h"
#include "dist/peers.h"
#include "optim/shards.h"
#include "train/batch_tensors.h"

namespace lh {

/// A run of sequences of a step, cut into micro-batches.
struct SequenceShare {
  int64_t first = 0, count = 0;
  int64_t micro_sequences = 0;

  int64_t micro_batches() const { return (count + micro_sequences - 1) / micro_sequences; }
  /// Sequences of micro-batch i: the last one may be smaller.
  int64_t begin(int64_t micro) const { return first + micro * micro_sequences; }
  int64_t size(int64_t micro) const { return std::min(micro_sequences, first + count - begin(micro)); }
};

class Team {
 public:
  /// All processes of the job call it. ConfigError when the mesh does not fill the job.
  Team(std::shared_ptr<Peers> job, const ParallelConfig& config);

  bool alone() const { return world_size() == 1; }
  Device device() const { return job_->device(); }
  int rank() const { return job_->rank(); }
  int world_size() const { return job_->size(); }
  bool leads() const { return rank() == 0; }  // writes files, prints
  const MeshPlace& place() const { return mesh_.place; }
  Communicator& world() const { return *mesh_.world; }
  Communicator& context() const { return *mesh_.context; }
  /// All processes, for a thread that sums gradients while another goes on; null where that is not done
  /// (parallel.overlap).
  Communicator* gradients() const { return gradients_.get(); }

  /// What this process holds and updates of the optimizer (parallel.zero).
  ShardPlace shard_place() const;

  /// This data group's part of a step. ConfigError when there are more groups than sequences.
  SequenceShare share(int64_t sequences, int64_t micro_sequences) const;

  /// The batch's rows that this process holds, and where the others are.
  BatchTensors tensors(const Batch& batch, Device device) const;
  /// Tokens, targets and positions of those rows (segment_offsets stay those of the whole batch).
  Batch rows(const Batch& batch) const;

  /// The sum over all processes of a tensor on any device.
  void sum(Tensor& t, const std::string& label) const;
  /// Whether it is so on any process.
  bool any(bool here, const std::string& label) const;
  /// The least of the processes' numbers.
  int64_t least(int64_t value, const std::string& label) const;

  /// The leader's tensor and number everywhere.
  void spread(Tensor& t, const std::string& label) const;
  int64_t spread(int64_t value, const std::string& label) const;
  /// The processes' vectors one behind the other, sizes[r] elements of process r, for the leader; nothing for the
  /// others. In host memory.
  Tensor gather(const Tensor& part, const std::vector<int64_t>& sizes, const std::string& label) const;
  /// The reverse: `part` becomes this process's piece of what the leader has in `whole`.
  void scatter(const Tensor& whole, const std::vector<int64_t>& sizes, Tensor& part,
               const std::string& label) const;
  /// ConfigError on a process whose text differs from the leader's (Peers::agree).
  void must_agree(const std::string& text, const std::string& what) const { job_->agree(what, text); }

  void set_step(int64_t step) const;
  void set_place(const std::string& place) const { job_->set_place(place); }

 private:
  std::shared_ptr<Peers> job_;
  bool shares_optimizer_;
  ContextOrder order_;
  Mesh mesh_;
  std::unique_ptr<Communicator> gradients_;
};

/// The processes that the environment describes (launch/process_context.h); one when it describes none. A stop
/// signal (train/signals.h) ends their wait for each other. ConfigError, CommError.
std::shared_ptr<Peers> peers_of_environment();

/// All of them make the recipe's team, on the recipe's devices: one for each process of a machine, in turn.
/// ConfigError when one has another recipe, is another `version` of the program, or would compute on another kind of
/// device or in another dtype.
std::unique_ptr<Team> make_team(std::shared_ptr<Peers> job, const Recipe& recipe, const std::string& version);

}  // namespace lh
