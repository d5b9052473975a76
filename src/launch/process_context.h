// Which process of which job this is, from whatever started it: a pure function of the environment.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace lh {

using Environment = std::map<std::string, std::string>;

/// This process's environment.
Environment current_environment();

struct ProcessContext {
  int64_t rank = 0;
  int64_t world_size = 1;
  int64_t local_rank = 0;
  int64_t local_world_size = 1;
  int64_t node = 0;
  int64_t nodes = 1;
  std::string master_addr = "127.0.0.1";  // where rank 0 listens
  int64_t master_port = 29500;            // and rank 0 may bind this port: nobody else does
  int64_t generation = 0;       // how often the job was started again, the same on all ranks
  bool restarted = false;       // whether it was, as this process knows; ranks may differ
  std::string source = "none";  // "torchrun", "PyTorchJob", "Open MPI", "MPI", "PMIx",
                                // "Slurm", "indexed Job" or "none"
};

/// Reads the first family of variables that is there, in this order:
///   torchrun, longhand launch   RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE MASTER_ADDR
///   MASTER_PORT Kubeflow PyTorchJob         RANK WORLD_SIZE MASTER_ADDR MASTER_PORT, one process
///   per pod Open MPI                    OMPI_COMM_WORLD_RANK, _SIZE, _LOCAL_RANK, _LOCAL_SIZE
///   MPICH, Intel MPI            PMI_RANK PMI_SIZE MPI_LOCALRANKID MPI_LOCALNRANKS
///   Slurm, inside srun only     SLURM_PROCID SLURM_STEP_NUM_TASKS SLURM_LOCALID SLURM_NODEID ...
///   PMIx                        PMIX_RANK with WORLD_SIZE
///   Kubernetes indexed Job      JOB_COMPLETION_INDEX with WORLD_SIZE and MASTER_ADDR
/// With none of them it is a job of one process. MASTER_ADDR, MASTER_PORT and LH_BOOTSTRAP_PORT win
/// over what a family implies; when the launcher itself listens on MASTER_PORT
/// (TORCHELASTIC_USE_AGENT_STORE=True) the next port is taken.
/// ConfigError when the variables contradict each other, with what to set.
ProcessContext process_context(const Environment& environment);

}  // namespace lh
