#include "launch/process_context.h"

#include <unistd.h>

#include <charconv>
#include <optional>

#include "base/error.h"
#include "launch/host_names.h"

namespace lh {
namespace {

class Variables {
 public:
  explicit Variables(const Environment& environment) : environment_(environment) {}

  bool has(const std::string& name) const { return text(name) != nullptr; }
  const std::string* text(const std::string& name) const {
    const auto found = environment_.find(name);
    return found == environment_.end() || found->second.empty() ? nullptr : &found->second;
  }
  /// A number of at least `low`; absent is absent, anything else an error.
  std::optional<int64_t> number(const std::string& name, int64_t low = 0) const {
    const std::string* value = text(name);
    if (value == nullptr) return std::nullopt;
    int64_t result = 0;
    const auto [end, error] = std::from_chars(value->data(), value->data() + value->size(), result);
    if (error != std::errc{} || end != value->data() + value->size() || result < low)
      fail<ConfigError>("{}={}: expected a whole number of at least {}", name, *value, low);
    return result;
  }
  int64_t need(const std::string& name, const std::string& because, int64_t low = 0) const {
    const auto value = number(name, low);
    if (!value) fail<ConfigError>("{} is set but {} is not: set both or neither", because, name);
    return *value;
  }

 private:
  const Environment& environment_;
};

/// Ports below the range from which Linux takes ports of outgoing connections.
int64_t port_of(const std::string& job) {
  uint32_t hash = 2166136261u;  // FNV-1a: the same on every node
  for (const char c : job) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  return 20000 + hash % 9000;
}

void read_torchrun(const Variables& v, ProcessContext& c) {
  c.rank = v.need("RANK", "WORLD_SIZE");
  c.world_size = v.need("WORLD_SIZE", "RANK", 1);
  c.source = v.has("LOCAL_RANK") ? "torchrun" : "PyTorchJob";
  c.local_rank = v.number("LOCAL_RANK").value_or(0);
  c.local_world_size = v.number("LOCAL_WORLD_SIZE", 1).value_or(c.local_rank + 1);
  c.nodes = v.number("GROUP_WORLD_SIZE", 1)
                .value_or((c.world_size + c.local_world_size - 1) / c.local_world_size);
  c.node = v.number("GROUP_RANK").value_or(c.rank / c.local_world_size);
  // torchrun counts the restarts of each node for itself, so on several the number is no name for an attempt.
  const int64_t restarts = v.number("TORCHELASTIC_RESTART_COUNT").value_or(0);
  c.generation = v.number("LH_GENERATION").value_or(c.nodes == 1 ? restarts : 0);
  c.restarted = c.generation > 0 || restarts > 0;
}

void read_open_mpi(const Variables& v, ProcessContext& c, std::string& job) {
  const std::string head = "OMPI_COMM_WORLD_";
  c.source = "Open MPI";
  c.rank = v.need(head + "RANK", "OMPI_COMM_WORLD_SIZE");
  c.world_size = v.need(head + "SIZE", "OMPI_COMM_WORLD_RANK", 1);
  c.local_rank = v.need(head + "LOCAL_RANK", "OMPI_COMM_WORLD_RANK");
  c.local_world_size = v.number(head + "LOCAL_SIZE", 1).value_or(c.local_rank + 1);
  c.nodes = (c.world_size + c.local_world_size - 1) / c.local_world_size;
  c.node = c.rank / c.local_world_size;
  for (const char* name : {"PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid"})
    if (v.has(name)) job = *v.text(name);
}

void read_mpich(const Variables& v, ProcessContext& c) {
  c.source = "MPI";
  c.rank = v.need("PMI_RANK", "PMI_SIZE");
  c.world_size = v.need("PMI_SIZE", "PMI_RANK", 1);
  c.local_rank = v.number("MPI_LOCALRANKID").value_or(0);
  c.local_world_size = v.number("MPI_LOCALNRANKS", 1).value_or(c.local_rank + 1);
  c.nodes = (c.world_size + c.local_world_size - 1) / c.local_world_size;
  c.node = c.rank / c.local_world_size;
}

void read_slurm(const Variables& v, ProcessContext& c, std::string& job) {
  c.source = "Slurm";
  c.rank = v.need("SLURM_PROCID", "SLURM_STEP_NUM_TASKS");
  c.world_size = v.need("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", 1);
  c.local_rank = v.need("SLURM_LOCALID", "SLURM_PROCID");
  c.node = v.number("SLURM_NODEID").value_or(0);
  c.nodes = v.number("SLURM_STEP_NUM_NODES", 1).value_or(1);
  c.local_world_size = c.local_rank + 1;
  if (v.has("SLURM_STEP_TASKS_PER_NODE")) {
    const auto counts = expand_counts(*v.text("SLURM_STEP_TASKS_PER_NODE"));
    if (c.node < static_cast<int64_t>(counts.size()))
      c.local_world_size = counts[static_cast<size_t>(c.node)];
  }
  if (v.has("SLURM_STEP_NODELIST"))
    c.master_addr = expand_host_list(*v.text("SLURM_STEP_NODELIST")).front();
  c.generation = v.number("SLURM_RESTART_COUNT").value_or(0);
  c.restarted = c.generation > 0;
  if (v.has("SLURM_JOB_ID")) job = *v.text("SLURM_JOB_ID");
  if (v.has("SLURM_STEP_ID")) job += "." + *v.text("SLURM_STEP_ID");
}

/// Where Slurm's plugin pmi2 is the default, srun sets these two beside the step's variables, which say more.
bool is_slurms_own_pmi(const Variables& v) {
  return v.has("SLURM_STEP_NUM_TASKS") && !v.has("MPI_LOCALRANKID") &&
         v.number("PMI_RANK") == v.number("SLURM_PROCID") &&
         v.number("PMI_SIZE") == v.number("SLURM_STEP_NUM_TASKS");
}

void read_master(const Variables& v, ProcessContext& c, const std::string& job) {
  const std::string* address = v.text("MASTER_ADDR");
  if (address != nullptr)
    c.master_addr = *address;
  else if (c.nodes > 1 && c.source != "Slurm")
    fail<ConfigError>(
        "{} says that {} processes run on {} nodes, but not where rank 0 is: set "
        "MASTER_ADDR to its host for all of them",
        c.source, c.world_size, c.nodes);
  if (const auto port = v.number("MASTER_PORT", 1))
    c.master_port = *port;
  else if (!job.empty())
    c.master_port = port_of(job);
  // torchrun's agent listens on MASTER_PORT itself when it says so; a worker can't bind it.
  const std::string* store = v.text("TORCHELASTIC_USE_AGENT_STORE");
  if (store != nullptr && *store == "True") ++c.master_port;
  if (const auto port = v.number("LH_BOOTSTRAP_PORT", 1)) c.master_port = *port;
  if (c.master_port > 65535)
    fail<ConfigError>("port {} for rank 0 is above 65535: set MASTER_PORT", c.master_port);
}

void check(const Variables& v, const ProcessContext& c) {
  const auto world = v.number("WORLD_SIZE", 1);
  if (world && *world != c.world_size)
    fail<ConfigError>("WORLD_SIZE={} contradicts the {} processes of {}: unset it", *world,
                      c.world_size, c.source);
  if (c.rank >= c.world_size)
    fail<ConfigError>("{}: rank {} of {} processes: ranks count from 0", c.source, c.rank,
                      c.world_size);
  if (c.local_rank >= c.local_world_size || c.local_world_size > c.world_size)
    fail<ConfigError>("{}: local rank {} of {} processes on this node, {} in all, can't be",
                      c.source, c.local_rank, c.local_world_size, c.world_size);
  if (c.node >= c.nodes)
    fail<ConfigError>("{}: node {} of {} nodes: nodes count from 0", c.source, c.node, c.nodes);
}

}  // namespace

Environment current_environment() {
  Environment result;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string line = *entry;
    const size_t equals = line.find('=');
    if (equals != std::string::npos) result[line.substr(0, equals)] = line.substr(equals + 1);
  }
  return result;
}

ProcessContext process_context(const Environment& environment) {
  const Variables v(environment);
  ProcessContext c;
  std::string job;  // what tells this job's port from another's on the same machine
  if (v.has("RANK")) {
    read_torchrun(v, c);
  } else if (v.has("OMPI_COMM_WORLD_RANK") || v.has("OMPI_COMM_WORLD_SIZE")) {
    read_open_mpi(v, c, job);
  } else if ((v.has("PMI_RANK") || v.has("PMI_SIZE")) && !is_slurms_own_pmi(v)) {
    read_mpich(v, c);
  } else if (v.has("SLURM_PROCID") && v.has("SLURM_STEP_NUM_TASKS")) {
    // A batch script has SLURM_PROCID=0 and SLURM_NTASKS too, but it is alone: only srun sets the
    // step's variables.
    read_slurm(v, c, job);
  } else if (v.has("PMIX_RANK")) {
    c.source = "PMIx";
    c.rank = v.need("PMIX_RANK", "PMIX_NAMESPACE");
    c.world_size = v.need("WORLD_SIZE", "PMIX_RANK", 1);
    c.local_rank = v.number("LOCAL_RANK").value_or(0);
    c.local_world_size = v.number("LOCAL_WORLD_SIZE", 1).value_or(c.local_rank + 1);
    c.nodes = (c.world_size + c.local_world_size - 1) / c.local_world_size;
    c.node = c.rank / c.local_world_size;
    if (v.has("PMIX_NAMESPACE")) job = *v.text("PMIX_NAMESPACE");
  } else if (v.has("JOB_COMPLETION_INDEX") && (v.has("WORLD_SIZE") || v.has("MASTER_ADDR"))) {
    // Without these two the indices are independent tasks.
    c.source = "indexed Job";
    c.rank = c.node = v.need("JOB_COMPLETION_INDEX", "WORLD_SIZE");
    c.world_size = c.nodes = v.need("WORLD_SIZE", "JOB_COMPLETION_INDEX and MASTER_ADDR", 1);
  } else {
    // WORLD_SIZE alone says nothing of this process; with one of these it is half of what torchrun sets.
    if (v.number("WORLD_SIZE", 1).value_or(1) > 1)
      for (const char* name : {"LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"})
        if (v.has(name)) fail<ConfigError>("WORLD_SIZE={} and {} are set but RANK is not: set it, or unset them",
                                           *v.text("WORLD_SIZE"), name);
    if (v.number("SLURM_PROCID").value_or(0) > 0)
      fail<ConfigError>("SLURM_PROCID={} is set but SLURM_STEP_NUM_TASKS is not: start the processes with srun",
                        *v.text("SLURM_PROCID"));
    return c;
  }
  check(v, c);
  read_master(v, c, job);
  return c;
}

}  // namespace lh
