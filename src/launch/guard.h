// No process outlives its launcher: a small process that watches the launcher and, when it dies
// without a word, kills the workers and whatever they started. It does the same when the launcher
// is stopped or hangs and so can't keep the promise that its lease on the job implies. It also
// knows how to find processes that left their group, by a mark in the environment that every
// descendant inherits.
#pragma once

#include <sys/types.h>

#include <string>

namespace lh {

/// A worker's variable with the ids of the launchers above it, outermost first.
inline constexpr const char* kLaunchMark = "LH_LAUNCH_ID";

/// Sends SIGKILL to every process whose environment carries the id; returns how many it found.
int kill_marked(const std::string& launch_id);

class Guard {
 public:
  /// Forks the watching process; call it while this process has one thread. Error if it can't.
  explicit Guard(const std::string& launch_id);
  /// Tells it that all is well and waits for its end.
  ~Guard();
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;

  /// The group of this leader is to be killed should the launcher die now; or no longer.
  void started(pid_t leader) { tell({Word::kStarted, leader}); }
  void ended(pid_t leader) { tell({Word::kEnded, leader}); }

  /// Everything is to be killed unless the next call comes within so many seconds; 0: no lease.
  void lease(double seconds) { tell({Word::kLease, static_cast<int>(seconds * 1000)}); }

 private:
  struct Word {
    enum Kind : int { kAllIsWell, kStarted, kEnded, kLease } kind = kAllIsWell;
    int value = 0;  // a pid, or milliseconds
  };
  [[noreturn]] static void watch(int pipe, const std::string& launch_id);
  void tell(Word word);
  pid_t pid_ = -1;
  int pipe_ = -1;
};

}  // namespace lh
