#include "launch/launch.h"

#include <poll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <random>

#include "base/error.h"
#include "base/log.h"
#include "launch/node_agent.h"

namespace lh {
namespace {

namespace fs = std::filesystem;

constexpr int kTickMilliseconds = 20;

std::string random_id() {
  std::random_device random;
  return fmt::format("{:08x}{:08x}", random(), random());
}

/// Signals as a readable descriptor, blocked for this thread and those it starts.
class SignalQueue {
 public:
  explicit SignalQueue(const std::vector<int>& signals) {
    sigset_t set;
    sigemptyset(&set);
    for (const int signal : signals) {
      struct sigaction now {};
      ::sigaction(signal, nullptr, &now);
      // nohup asks that a hang-up be ignored.
      if (signal == SIGHUP && now.sa_handler == SIG_IGN) continue;
      sigaddset(&set, signal);
    }
    sigaddset(&set, SIGCHLD);
    ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
    ::signal(SIGPIPE, SIG_IGN);
    fd_ = ::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd_ < 0) fail<Error>("signalfd: {}", std::strerror(errno));
  }
  ~SignalQueue() { ::close(fd_); }
  SignalQueue(const SignalQueue&) = delete;
  SignalQueue& operator=(const SignalQueue&) = delete;

  int fd() const { return fd_; }
  /// The next one; 0 when there is none.
  int next() const {
    signalfd_siginfo info;
    return ::read(fd_, &info, sizeof info) == sizeof info ? static_cast<int>(info.ssi_signo) : 0;
  }

 private:
  int fd_ = -1;
};

/// Each node of a Slurm step starting a job of its own is rarely meant.
void warn_of_many_jobs(const LaunchPlan& plan) {
  const char* nodes = std::getenv("SLURM_STEP_NUM_NODES");
  if (plan.max_nodes == 1 && nodes != nullptr && std::atoi(nodes) > 1)
    log_warn(
        "[launch] this step of Slurm has {} nodes, but --nnodes is 1: each node runs a job of "
        "its own (see scripts/cluster/slurm_launch.sh)",
        nodes);
}

}  // namespace

std::string find_program(const std::string& name) {
  if (name.find('/') != std::string::npos) {
    if (::access(name.c_str(), X_OK) == 0 && !fs::is_directory(name)) return name;
    const int reason = errno;
    fail<Error>("cannot run '{}': {}", name,
                fs::is_directory(name) ? "it is a folder"
                : reason == EACCES     ? "it is not executable (a script needs chmod +x, or its "
                                         "interpreter before it)"
                                       : std::strerror(reason));
  }
  const char* variable = std::getenv("PATH");
  std::string path = variable != nullptr ? variable : "/usr/bin:/bin";
  for (size_t start = 0; start <= path.size();) {
    const size_t end = std::min(path.find(':', start), path.size());
    const fs::path candidate = fs::path(path.substr(start, end - start)) / name;
    if (::access(candidate.c_str(), X_OK) == 0 && !fs::is_directory(candidate))
      return candidate.string();
    start = end + 1;
  }
  fail<Error>("cannot find the program '{}' in PATH (write ./{} for one in this folder)", name,
              name);
}

int launch(const LaunchOptions& options) {
  LaunchPlan plan = make_plan(options);
  const std::string program = find_program(options.command[0]);
  warn_of_many_jobs(plan);
  const std::string launch_id = random_id();
  if (options.standalone && plan.job_id == "none") plan.job_id = launch_id;
  const SignalQueue signals(plan.signals);
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  Guard guard(launch_id);  // forks, so before the console's thread
  Console console;
  if (plan.workers > 1 && std::getenv("OMP_NUM_THREADS") == nullptr)
    console.say(LogLevel::kInfo, fmt::format("[launch] OMP_NUM_THREADS={} for each of {} workers",
                                             default_threads(plan.workers), plan.workers));
  EventLoop loop;
  NodeAgent agent(loop, plan, program, launch_id, guard, console);
  loop.watch(signals.fd(), POLLIN, [&](short) {
    while (const int signal = signals.next())
      if (signal != SIGCHLD) agent.stop_signal(signal);  // that one only ends the wait
  });
  while (!agent.done()) {
    loop.run_once(kTickMilliseconds);
    agent.tick();
  }
  return agent.exit_code();
}

}  // namespace lh
