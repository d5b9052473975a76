// What the user asks of the launcher, as typed (torchrun's names and defaults), and what it means.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace lh {

/// The path of a worker that is this program.
inline constexpr const char* kOwnProgram = "/proc/self/exe";

struct LaunchOptions {
  std::string nnodes = "1";          // N or MIN:MAX
  std::string nproc_per_node = "1";  // a number, or gpu, cpu, auto
  std::string rdzv_backend = "static";
  std::string rdzv_endpoint;
  std::string rdzv_id = "none";
  std::string rdzv_conf;
  bool standalone = false;
  int64_t max_restarts = 0;
  int64_t node_rank = -1;  // -1: by host name
  std::string master_addr;
  int64_t master_port = 0;  // 0: torchrun's 29500 on several nodes, a free port on one
  std::string local_addr;
  std::string role = "default";
  std::string log_dir;
  std::string redirects = "0";
  std::string tee = "0";
  std::string local_ranks_filter;
  std::string stdout_filters;  // words with commas: lines with one of them go to filtered_stdout.log too
  std::string stderr_filters;
  bool virtual_local_rank = false;  // each worker is local rank 0 and sees one device
  std::string signals_to_handle = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1";
  double grace = 30;           // seconds from SIGTERM to SIGKILL when a signal stops the job
  double failure_grace = 0.5;  // the same after a failure: peers of a failed rank can't go on
  bool propagate_exit_code = false;
  std::vector<std::string> command;  // program and arguments
};

struct Streams {
  bool out = false;
  bool err = false;
};

struct LaunchPlan {
  LaunchOptions options;
  int64_t min_nodes = 1;
  int64_t max_nodes = 1;
  int64_t workers = 1;  // processes on this node
  std::string job_id;
  std::string host;  // of the coordinator; "" with one node: inside this launcher
  int64_t port = 0;  // 0: any free one
  std::optional<bool>
      is_host;  // must, or must not, run the coordinator; else whoever has the address
  double join_timeout = 600;
  double last_call = 30;  // once MIN nodes are there, how long to wait for more
  double beat_every = 0.5;
  double lost_after = 3;            // seconds of silence after which a node is lost
  std::vector<Streams> to_file;     // per local rank: goes to a file
  std::vector<Streams> to_console;  // per local rank: is also shown, with a prefix
  std::vector<bool> shown;          // per local rank: what isn't in a file may reach the console
  std::vector<std::string> stdout_words;  // of --duplicate-stdout-filters
  std::vector<std::string> stderr_words;
  std::vector<std::string> devices;  // per local rank, for --virtual-local-rank; empty without devices
  std::vector<int> signals;
  std::string own_master_addr;  // one node with --master-port: the workers get just what was given
  int64_t own_master_port = 0;
};

/// Checks everything; ConfigError says what was expected.
LaunchPlan make_plan(const LaunchOptions& options);

/// Cores this process may use, and NVIDIA devices that a program started now would see.
int64_t usable_cores();
int64_t visible_gpus();

}  // namespace lh
