// The processes of one training job and the groups among them.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "dist/communicator.h"
#include "dist/gloo_transport.h"
#include "dist/job_board.h"
#include "dist/nccl_transport.h"
#include "dist/tcp_store.h"

namespace lh {

/// This process among the others of its job.
struct PeerPlace {
  int rank = 0, size = 1;
  int local_rank = 0;         // among those of its host
  Endpoint master;            // where rank 0 serves the store; unused when size is 1
  Device device = {};  // of the tensors: a CUDA device makes NCCL carry them, where the build has it
  bool imagined = false;  // the others only count what reaches them (dist/imagined.h)
  std::string attempt = "0";  // differs between restarts, so that no process meets one of an earlier try
};

/// Where a process stands in a grid of `data` groups of `context` processes; neighbours share a sequence.
struct MeshPlace {
  int data = 1, context = 1;
  int data_rank = 0, context_rank = 0;
};

/// ConfigError when context (and data, unless it is 0: as many as fit) does not fill the job exactly.
MeshPlace mesh_place(int rank, int size, int64_t data, int64_t context);

/// The first failure of any process is that of the job: it is told once, by the process that Peers or a
/// communicator gives its own reason back to, and all others get PeerFailure from whatever they wait in.
class Peers {
 public:
  /// Finds the store at the master, which rank 0 serves. CommError says what is wrong with it, ConfigError that another
  /// process has this rank; where several processes of a host can't reach it, the others than the first get
  /// PeerFailure. `store`: used in place of the master's (threads). `stop`: when it says so, waits end with CommInterrupted.
  Peers(const PeerPlace& place, const GlooOptions& gloo, std::shared_ptr<Store> store = nullptr,
        const JobBoard::Options& board = {}, std::function<bool()> stop = {});
  ~Peers();

  int rank() const { return place_.rank; }
  int size() const { return place_.size; }
  int local_rank() const { return place_.local_rank; }
  Device device() const { return place_.device; }
  /// Of the tensors of groups made from now on.
  void use_device(Device device) { place_.device = device; }

  /// All processes call it; returns when all have come. ConfigError on one whose text is not rank 0's, with the first
  /// line that differs. CommError names who has not come.
  void agree(const std::string& what, const std::string& text);

  /// Records that this process ends with a failure. True when it is the job's first, or nobody can know: then this
  /// process tells people.
  bool tells(const std::string& reason, int exit_code);
  /// After a failure, when the communicators are gone: rank 0 serves the store until the others know the reason. Ten
  /// seconds at most, and not when asked to stop.
  void farewell();

  /// All processes call it with the same name and members (ranks, ascending), whether they are in it or not; nullptr
  /// for those that are not.
  std::unique_ptr<Communicator> group(const std::string& name, const std::vector<int>& members);
  std::unique_ptr<Communicator> world(const std::string& name);

  /// Says where this process is while it takes part in nothing ("checkpoint.save").
  void set_place(const std::string& place);

 private:
  PeerPlace place_;
  GlooOptions gloo_;
  bool stopped() const { return stopped_ && stopped_(); }
  void find_store(const std::string& who);
  std::string master_problem() const;
  std::string missing(const std::string& key, const std::string& until);

  std::chrono::milliseconds patience_;
  std::chrono::steady_clock::time_point come_until_;  // until then all processes should come
  std::function<bool()> stopped_;
  std::unique_ptr<TcpStoreServer> server_;
  std::shared_ptr<Store> store_;    // says what is in it
  std::shared_ptr<Store> waiting_;  // the same, but a key that is missing when the job has failed throws
  std::shared_ptr<JobBoard> board_;
};

/// The groups that a training step uses.
struct Mesh {
  MeshPlace place;
  std::unique_ptr<Communicator> world, context;

  static Mesh connect(Peers& job, int64_t data, int64_t context);
};

}  // namespace lh
