// Who am I, from the variables of every launcher; and lists of hosts.
#include <doctest/doctest.h>

#include "launch/host_names.h"
#include "launch/process_context.h"
#include "launch/worker_environment.h"
#include "support/folder.h"

namespace {

using namespace lh;
using namespace lh::test;

struct Expected {
  const char* source;
  int64_t rank, world, local, local_world, node, nodes;
  const char* address;
  int64_t port;  // 0: not checked
};

void check(const Environment& e, const Expected& x) {
  const ProcessContext c = process_context(e);
  CHECK(c.source == x.source);
  CHECK(c.rank == x.rank);
  CHECK(c.world_size == x.world);
  CHECK(c.local_rank == x.local);
  CHECK(c.local_world_size == x.local_world);
  CHECK(c.node == x.node);
  CHECK(c.nodes == x.nodes);
  CHECK(c.master_addr == x.address);
  if (x.port != 0)
    CHECK(c.master_port == x.port);
  else
    CHECK((c.master_port >= 20000 && c.master_port < 29000));
}

Environment operator+(Environment a, const Environment& b) {
  for (const auto& [name, value] : b) a[name] = value;
  return a;
}

const Environment kTorchrun = {{"RANK", "5"},
                               {"WORLD_SIZE", "8"},
                               {"LOCAL_RANK", "1"},
                               {"LOCAL_WORLD_SIZE", "4"},
                               {"GROUP_RANK", "1"},
                               {"GROUP_WORLD_SIZE", "2"},
                               {"MASTER_ADDR", "n0"},
                               {"MASTER_PORT", "23456"},
                               {"TORCHELASTIC_RESTART_COUNT", "2"}};
const Environment kOpenMpi = {{"OMPI_COMM_WORLD_RANK", "3"},
                              {"OMPI_COMM_WORLD_SIZE", "4"},
                              {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                              {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"},
                              {"PMIX_RANK", "3"},
                              {"PMIX_NAMESPACE", "prte-7@1"}};
const Environment kSlurm = {{"SLURM_PROCID", "6"},
                            {"SLURM_STEP_NUM_TASKS", "7"},
                            {"SLURM_LOCALID", "2"},
                            {"SLURM_NODEID", "1"},
                            {"SLURM_STEP_NUM_NODES", "2"},
                            {"SLURM_STEP_TASKS_PER_NODE", "4,3"},
                            {"SLURM_STEP_NODELIST", "gpu[07-08]"},
                            {"SLURM_JOB_ID", "4711"},
                            {"SLURM_STEP_ID", "0"}};

TEST_CASE("each launcher's variables say who a process is") {
  check({}, {"none", 0, 1, 0, 1, 0, 1, "127.0.0.1", 29500});
  check(kTorchrun, {"torchrun", 5, 8, 1, 4, 1, 2, "n0", 23456});
  // The nodes of one torchrun count apart.
  CHECK(process_context(kTorchrun).generation == 0);
  CHECK(process_context(kTorchrun).restarted);
  CHECK(process_context(kTorchrun + Environment{{"GROUP_WORLD_SIZE", "1"}, {"GROUP_RANK", "0"}}).generation == 2);
  CHECK(process_context(kTorchrun + Environment{{"LH_GENERATION", "5"}}).generation == 5);
  check({{"RANK", "2"},
         {"WORLD_SIZE", "3"},
         {"MASTER_ADDR", "job-master-0"},
         {"MASTER_PORT", "23456"}},
        {"PyTorchJob", 2, 3, 0, 1, 2, 3, "job-master-0", 23456});
  check(kOpenMpi + Environment{{"MASTER_ADDR", "a"}}, {"Open MPI", 3, 4, 1, 2, 1, 2, "a", 0});
  check({{"OMPI_COMM_WORLD_RANK", "1"},
         {"OMPI_COMM_WORLD_SIZE", "2"},
         {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
         {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}},
        {"Open MPI", 1, 2, 1, 2, 0, 1, "127.0.0.1", 29500});
  check({{"PMI_RANK", "3"},
         {"PMI_SIZE", "4"},
         {"MPI_LOCALRANKID", "1"},
         {"MPI_LOCALNRANKS", "2"},
         {"MASTER_ADDR", "a"}},
        {"MPI", 3, 4, 1, 2, 1, 2, "a", 29500});
  check(kSlurm, {"Slurm", 6, 7, 2, 3, 1, 2, "gpu07", 0});
  check({{"PMIX_RANK", "1"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "a"}, {"MASTER_PORT", "1234"}},
        {"PMIx", 1, 2, 0, 1, 1, 2, "a", 1234});
  check({{"JOB_COMPLETION_INDEX", "1"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "job-0.svc"}},
        {"indexed Job", 1, 2, 0, 1, 1, 2, "job-0.svc", 29500});
}

TEST_CASE("what is nearer wins: our launcher inside mpirun inside Slurm") {
  const Environment all = kSlurm + kOpenMpi + kTorchrun;
  CHECK(process_context(all).source == "torchrun");
  CHECK(process_context(kSlurm + kOpenMpi + Environment{{"MASTER_ADDR", "a"}}).source ==
        "Open MPI");
  // A Slurm batch script is one process, whatever the allocation; so is an independent Job index.
  CHECK(process_context({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "8"}, {"SLURM_LOCALID", "0"}})
            .world_size == 1);
  CHECK(process_context({{"JOB_COMPLETION_INDEX", "3"}}).world_size == 1);
  CHECK(process_context({{"WORLD_SIZE", "3"}}).world_size == 1);
}

TEST_CASE("ports are the job's own, the same on all ranks and free for the workers") {
  const Environment other =
      kSlurm + Environment{{"SLURM_PROCID", "0"}, {"SLURM_NODEID", "0"}, {"SLURM_LOCALID", "0"}};
  CHECK(process_context(kSlurm).master_port == process_context(other).master_port);
  CHECK(process_context(kSlurm).master_port !=
        process_context(other + Environment{{"SLURM_JOB_ID", "4712"}}).master_port);
  CHECK(process_context(kSlurm + Environment{{"MASTER_PORT", "777"}}).master_port == 777);
  CHECK(process_context(kTorchrun + Environment{{"TORCHELASTIC_USE_AGENT_STORE", "True"}})
            .master_port == 23457);
  CHECK(process_context(kTorchrun + Environment{{"LH_BOOTSTRAP_PORT", "99"}}).master_port == 99);
}

TEST_CASE("variables that contradict each other are an error that says which") {
  const auto error = [](const Environment& e) {
    return error_of<ConfigError>([&] { process_context(e); });
  };
  CHECK(contains(error({{"RANK", "1"}}), "RANK is set but WORLD_SIZE is not"));
  CHECK(contains(error({{"RANK", "x"}, {"WORLD_SIZE", "2"}}), "RANK=x"));
  CHECK(contains(error({{"RANK", "2"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "a"}}),
                 "ranks count from 0"));
  CHECK(contains(error(kTorchrun + Environment{{"LOCAL_RANK", "4"}}), "local rank 4 of 4"));
  CHECK(contains(error(kTorchrun + Environment{{"GROUP_RANK", "2"}}), "node 2 of 2"));
  CHECK(contains(error(kOpenMpi), "set MASTER_ADDR"));
  CHECK(contains(error(kOpenMpi + Environment{{"WORLD_SIZE", "8"}}), "contradicts"));
  CHECK(contains(error({{"PMIX_RANK", "0"}}), "WORLD_SIZE"));
  CHECK(contains(error({{"JOB_COMPLETION_INDEX", "0"}, {"MASTER_ADDR", "a"}}), "WORLD_SIZE"));
  CHECK(contains(error(kSlurm + Environment{{"SLURM_STEP_NODELIST", "gpu[1"}}), "bracket"));
  CHECK(contains(error(kTorchrun + Environment{{"MASTER_PORT", "70000"}}), "65535"));
}

TEST_CASE("the launcher's own workers read back what they were given") {
  LaunchOptions options;
  options.nproc_per_node = std::to_string(2);
  options.command = {"true"};
  const LaunchPlan plan = make_plan(options);
  Assignment a{.generation = 3,
               .node = 1,
               .nodes = 2,
               .first_rank = 2,
               .world_size = 4,
               .master_addr = "h",
               .master_port = 25000};
  Environment e;
  for (const std::string& line :
       worker_environment({{"KEEP", "me"}, {"LH_LAUNCH_ID", "outer"}}, plan, a, 1, "/e", "inner"))
    e[line.substr(0, line.find('='))] = line.substr(line.find('=') + 1);
  check(e, {"torchrun", 3, 4, 1, 2, 1, 2, "h", 25000});
  CHECK(process_context(e).generation == 3);
  CHECK(e["KEEP"] == "me");
  CHECK(e["LH_LAUNCH_ID"] == "outer inner");
  CHECK(e["OMP_NUM_THREADS"] == std::to_string(default_threads(2)));
  CHECK(e["TORCHELASTIC_RESTART_COUNT"] == e["LH_GENERATION"]);
}

TEST_CASE("half an environment is refused with what is missing") {
  const auto error = [](const Environment& e) { return error_of<ConfigError>([&] { process_context(e); }); };
  CHECK(error({{"WORLD_SIZE", "4"}, {"LOCAL_RANK", "2"}, {"MASTER_ADDR", "a"}}) ==
        "WORLD_SIZE=4 and LOCAL_RANK are set but RANK is not: set it, or unset them");
  CHECK(error({{"PMI_RANK", "1"}}) == "PMI_RANK is set but PMI_SIZE is not: set both or neither");
  CHECK(error({{"SLURM_PROCID", "1"}, {"SLURM_NTASKS", "2"}}) ==
        "SLURM_PROCID=1 is set but SLURM_STEP_NUM_TASKS is not: start the processes with srun");
  // A batch script, and a machine where somebody exports a size.
  CHECK(process_context({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "2"}}).world_size == 1);
  CHECK(process_context({{"WORLD_SIZE", "4"}}).world_size == 1);
}

TEST_CASE("srun with its plugin pmi2 is Slurm all the same") {
  const ProcessContext c = process_context({{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}, {"SLURM_PROCID", "1"},
                                            {"SLURM_STEP_NUM_TASKS", "2"}, {"SLURM_LOCALID", "1"},
                                            {"SLURM_STEP_TASKS_PER_NODE", "2"}, {"SLURM_JOB_ID", "7"}});
  CHECK(c.source == "Slurm");
  CHECK(c.local_rank == 1);
  CHECK(c.nodes == 1);
}

TEST_CASE("host lists and natural order") {
  using Names = std::vector<std::string>;
  CHECK(expand_host_list("a") == Names{"a"});
  CHECK(expand_host_list("gpu[08-11],login,x[1,3-4]") ==
        Names{"gpu08", "gpu09", "gpu10", "gpu11", "login", "x1", "x3", "x4"});
  CHECK(expand_host_list("r[1-2]n[1-2].lan") ==
        Names{"r1n1.lan", "r1n2.lan", "r2n1.lan", "r2n2.lan"});
  for (const char* bad : {"a[1", "a[3-1]", "a[x]", "", "a,", "a]", "a[1-99999999]"})
    CHECK(!error_of<ConfigError>([&] { expand_host_list(bad); }).empty());
  CHECK(expand_counts("4(x2),3") == std::vector<int64_t>{4, 4, 3});
  for (const char* bad : {"", "4(x", "(x2)", "4(x2"})
    CHECK(!error_of<ConfigError>([&] { expand_counts(bad); }).empty());
  CHECK(natural_less("node2", "node10"));
  CHECK(!natural_less("node10", "node2"));
  CHECK(natural_less("node9a", "node9b"));
  CHECK(natural_less("a", "a1"));
  CHECK(natural_less("n01", "n1") != natural_less("n1", "n01"));
  CHECK(!natural_less("x7", "x7"));
}

}  // namespace
