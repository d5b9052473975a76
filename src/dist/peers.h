// The processes of one training job and the groups among them.
#pragma once

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

class Peers {
 public:
  /// Waits for all processes. CommError names what is missing. `store`: used in place of the master's (threads).
  Peers(const PeerPlace& place, const GlooOptions& gloo, std::shared_ptr<Store> store = nullptr,
      const JobBoard::Options& board = {});
  ~Peers();

  int rank() const { return place_.rank; }
  int size() const { return place_.size; }
  Device device() const { return place_.device; }
  /// All processes call it with the same name and members (ranks, ascending), whether they are in it or not; nullptr
  /// for those that are not.
  std::unique_ptr<Communicator> group(const std::string& name, const std::vector<int>& members);
  std::unique_ptr<Communicator> world(const std::string& name);

  /// Says where this process is while it takes part in nothing ("checkpoint.save").
  void set_place(const std::string& place);

 private:
  PeerPlace place_;
  GlooOptions gloo_;
  std::unique_ptr<TcpStoreServer> server_;
  std::shared_ptr<Store> store_;
  std::shared_ptr<JobBoard> board_;
};

/// The groups that a training step uses.
struct Mesh {
  MeshPlace place;
  std::unique_ptr<Communicator> world, context;

  static Mesh connect(Peers& job, int64_t data, int64_t context);
};

}  // namespace lh
