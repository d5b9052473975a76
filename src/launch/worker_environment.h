// The variables that tell a worker who it is: torchrun's, and a few of our own.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "launch/message.h"
#include "launch/options.h"
#include "launch/process_context.h"

namespace lh {

/// This node's part of one generation.
struct Assignment {
  int64_t generation = 0;
  int64_t node = 0;
  int64_t nodes = 1;
  int64_t first_rank = 0;
  int64_t world_size = 1;
  std::string master_addr;
  int64_t master_port = 0;
};

/// From the coordinator's "start". ProtocolError.
Assignment get_assignment(const Message& start);

/// The whole environment of one worker: the parent's, overlaid with
///   RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE GROUP_RANK GROUP_WORLD_SIZE ROLE_NAME ROLE_RANK
///   ROLE_WORLD_SIZE MASTER_ADDR MASTER_PORT TORCHELASTIC_RESTART_COUNT, _MAX_RESTARTS, _RUN_ID,
///   _USE_AGENT_STORE (False: nobody listens on MASTER_PORT), _ERROR_FILE
///   LH_GENERATION (equal to TORCHELASTIC_RESTART_COUNT on every rank of the job), LH_ERROR_FILE,
///   LH_LAUNCH_ID; OMP_NUM_THREADS, when it's unset and a node has several workers: the cores
///   divided among them; TORCH_NCCL_ASYNC_ERROR_HANDLING=1 unless set.
/// CUDA_VISIBLE_DEVICES is left alone, except that --virtual-local-rank leaves one device of it and sets
/// LOCAL_RANK=0.
std::vector<std::string> worker_environment(Environment parent, const LaunchPlan& plan,
                                            const Assignment& assignment, int64_t local_rank,
                                            const std::string& error_file,
                                            const std::string& launch_id);

/// OMP_NUM_THREADS of each worker when the user does not set it.
int64_t default_threads(int64_t workers);

}  // namespace lh
