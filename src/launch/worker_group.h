// The workers of one node and one generation: started together, watched, and ended to the last
// grandchild.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "launch/guard.h"

namespace lh {

struct WorkerSpec {
  std::vector<std::string> arguments;    // [0] is the path of the program
  std::vector<std::string> environment;  // NAME=VALUE, all of it
  std::string stdout_file;               // "": the launcher's own stream
  std::string stderr_file;
  bool keeps_sigterm = false;  // it starts with SIGTERM blocked, so that one that comes early waits for its handler
};

struct WorkerExit {
  size_t worker = 0;
  pid_t pid = 0;
  int exit_code = 0;
  int signal = 0;  // not 0: killed by it
};

/// Every worker leads a session and process group of its own, so that a terminal's Ctrl-C reaches
/// only the launcher, and dies with the launcher (PR_SET_PDEATHSIG and the guard). The launcher
/// must be a child subreaper, so that orphaned grandchildren come back to it.
class WorkerGroup {
 public:
  WorkerGroup(Guard& guard, std::string launch_id)
      : guard_(guard), launch_id_(std::move(launch_id)) {}

  /// Starts one worker per spec. Error when a program can't be run; those started are then killed.
  void start(const std::vector<WorkerSpec>& specs);

  /// The workers that ended since the last call; call it on SIGCHLD and now and then.
  std::vector<WorkerExit> reap();

  /// SIGTERM to every group, once, and SIGKILL `grace` seconds later, or earlier if an earlier
  /// call said so.
  void terminate(double now, double grace);
  void tick(double now);

  /// Seconds since SIGKILL; 0 before.
  double overdue(double now) const { return killed_ ? now - kill_at_ : 0; }

  bool stopping() const { return stopping_; }
  /// Nothing of this generation runs any more.
  bool gone();
  std::vector<pid_t> pids() const;

 private:
  struct Worker {
    pid_t pid = 0;
    bool ended = false;  // the leader; its group may live on
    bool gone = false;
  };
  pid_t spawn(const WorkerSpec& spec);
  void kill_groups(int signal);

  Guard& guard_;
  std::string launch_id_;
  std::vector<Worker> workers_;
  bool stopping_ = false;
  bool killed_ = false;
  double kill_at_ = 0;
};

}  // namespace lh
