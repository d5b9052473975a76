#include "launch/worker_group.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "base/error.h"
#include "launch/event_loop.h"

namespace lh {
namespace {

/// Makes `to` the file of that name; "" leaves it as it is.
bool redirect(const char* name, int to) {
  if (*name == '\0') return true;
  const int fd = ::open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  return fd >= 0 && ::dup2(fd, to) == to;
}

/// Between fork and exec only calls that are safe in a signal handler may be made.
[[noreturn]] void become_worker(char* const* arguments, char* const* environment, const char* out,
                                const char* err, pid_t launcher, int report, bool keeps_sigterm) {
  ::setsid();
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != launcher) ::_exit(1);  // it died before the line above
  for (int signal = 1; signal < NSIG; ++signal) ::signal(signal, SIG_DFL);
  sigset_t blocked;
  sigemptyset(&blocked);
  if (keeps_sigterm) sigaddset(&blocked, SIGTERM);
  ::sigprocmask(SIG_SETMASK, &blocked, nullptr);
  if (redirect(out, STDOUT_FILENO) && redirect(err, STDERR_FILENO))
    ::execve(arguments[0], arguments, environment);
  const int reason = errno;
  if (::write(report, &reason, sizeof reason) < 0) ::_exit(126);
  ::_exit(127);
}

std::vector<char*> pointers(const std::vector<std::string>& strings) {
  std::vector<char*> result;
  for (const std::string& text : strings) result.push_back(const_cast<char*>(text.c_str()));
  result.push_back(nullptr);
  return result;
}

}  // namespace

pid_t WorkerGroup::spawn(const WorkerSpec& spec) {
  const std::vector<char*> arguments = pointers(spec.arguments);
  const std::vector<char*> environment = pointers(spec.environment);
  int report[2];
  if (::pipe2(report, O_CLOEXEC) != 0) fail<Error>("cannot open a pipe: {}", std::strerror(errno));
  const pid_t launcher = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0)
    become_worker(arguments.data(), environment.data(), spec.stdout_file.c_str(),
                  spec.stderr_file.c_str(), launcher, report[1], spec.keeps_sigterm);
  const int reason_of_fork = errno;
  ::close(report[1]);
  int reason = 0;
  ssize_t got = 0;
  while (pid > 0 && (got = ::read(report[0], &reason, sizeof reason)) < 0 && errno == EINTR) {
  }
  ::close(report[0]);
  if (pid < 0) fail<Error>("cannot start a process: {}", std::strerror(reason_of_fork));
  if (got == 0) return pid;
  ::waitpid(pid, nullptr, 0);
  fail<Error>("cannot run '{}': {}{}", spec.arguments[0], std::strerror(reason),
              reason == ENOEXEC ? " (a script needs a first line such as #!/bin/sh)" : "");
}

void WorkerGroup::start(const std::vector<WorkerSpec>& specs) {
  workers_.clear();
  stopping_ = killed_ = false;
  try {
    for (const WorkerSpec& spec : specs) {
      workers_.push_back({spawn(spec)});
      guard_.started(workers_.back().pid);
    }
  } catch (const Error&) {
    stopping_ = killed_ = true;
    kill_at_ = monotonic_seconds();
    kill_groups(SIGKILL);
    throw;
  }
}

std::vector<WorkerExit> WorkerGroup::reap() {
  std::vector<WorkerExit> exits;
  for (;;) {
    siginfo_t info{};
    if (::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0) break;
    const auto worker = std::find_if(workers_.begin(), workers_.end(), [&](const Worker& w) {
      return w.pid == info.si_pid && !w.ended;
    });
    if (worker != workers_.end()) {
      worker->ended = true;
      const bool exited = info.si_code == CLD_EXITED;
      exits.push_back({static_cast<size_t>(worker - workers_.begin()), info.si_pid,
                       exited ? info.si_status : 0, exited ? 0 : info.si_status});
      // While the leader is not reaped its number can't be another's. What it leaves behind ends
      // with it; but in an orderly stop a child may still be saving.
      if (!stopping_ || killed_) ::kill(-info.si_pid, SIGKILL);
      guard_.ended(info.si_pid);
    }
    ::waitpid(info.si_pid, nullptr, 0);  // also orphans that came back to this process
  }
  return exits;
}

void WorkerGroup::kill_groups(int signal) {
  for (const Worker& worker : workers_)
    if (!worker.gone) ::kill(-worker.pid, signal);
}

void WorkerGroup::terminate(double now, double grace) {
  kill_at_ = stopping_ ? std::min(kill_at_, now + grace) : now + grace;
  if (!stopping_) {
    stopping_ = true;
    kill_groups(SIGTERM);
    kill_groups(SIGCONT);  // a stopped process can't save
  }
  tick(now);
}

void WorkerGroup::tick(double now) {
  if (!stopping_ || now < kill_at_ || workers_.empty()) return;
  if (!killed_ || !gone()) kill_groups(SIGKILL);
  killed_ = true;
}

bool WorkerGroup::gone() {
  bool all = true;
  for (Worker& worker : workers_) {
    if (worker.gone) continue;
    // Members of the group that lost their parents are this process's children by now.
    siginfo_t info{};
    const bool empty =
        ::waitid(P_PGID, static_cast<id_t>(worker.pid), &info, WEXITED | WNOHANG | WNOWAIT) != 0 &&
        errno == ECHILD;
    worker.gone = worker.ended && empty;
    all &= worker.gone;
  }
  if (!all) return false;
  // Processes that left their worker's group, a daemon say.
  if (!workers_.empty() && kill_marked(launch_id_) > 0) return false;
  workers_.clear();
  return true;
}

std::vector<pid_t> WorkerGroup::pids() const {
  std::vector<pid_t> result;
  for (const Worker& worker : workers_)
    if (!worker.ended) result.push_back(worker.pid);
  return result;
}

}  // namespace lh
