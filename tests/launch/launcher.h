// Runs `longhand launch` in a test, in the background or to its end.
#pragma once

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/timer.h"
#include "support/folder.h"

namespace lh::test {

/// True while the process exists and is not a zombie.
inline bool alive(pid_t pid) {
  std::ifstream stat("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  std::getline(stat, line);
  const size_t end = line.rfind(')');
  return end != std::string::npos && line[end + 2] != 'Z' && line[end + 2] != 'X';
}

/// Waits until `condition` holds; false after so many seconds.
template <typename F>
bool wait_for(const F& condition, double seconds = 10) {
  for (const Timer timer; timer.seconds() < seconds; ::usleep(5000))
    if (condition()) return true;
  return condition();
}

inline std::string content(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

inline std::vector<pid_t> pids_in(const std::filesystem::path& file) {
  std::istringstream lines(content(file));
  std::vector<pid_t> result;
  for (pid_t pid; lines >> pid;) result.push_back(pid);
  return result;
}

inline size_t count_of(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = 0; (at = text.find(part, at)) != std::string::npos; at += part.size()) ++count;
  return count;
}

/// One launcher. Its output goes to files; the destructor kills it.
class Launcher {
 public:
  /// `words` follow `longhand launch`; `before` is put before the program's path, e.g. ip netns
  /// exec.
  Launcher(const Folder& folder, const std::string& name, std::vector<std::string> words,
           std::vector<std::string> environment = {}, std::vector<std::string> before = {})
      : out_(folder / (name + ".out")), err_(folder / (name + ".err")) {
    before.insert(before.end(), {LH_BINARY, "launch"});
    before.insert(before.end(), words.begin(), words.end());
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(::open(out_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0644), 1);
      ::dup2(::open(err_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0644), 2);
      // A killed launcher leaves its temporary files; they go with the test's folder.
      ::setenv("TMPDIR", folder.path().c_str(), 1);
      for (std::string& line : environment) ::putenv(line.data());
      std::vector<char*> argv;
      for (std::string& word : before) argv.push_back(word.data());
      argv.push_back(nullptr);
      ::execvp(argv[0], argv.data());
      ::_exit(127);
    }
  }
  ~Launcher() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      wait();
    }
  }
  Launcher(const Launcher&) = delete;
  Launcher& operator=(const Launcher&) = delete;

  /// Its exit code, or 128 + the signal that killed it.
  int wait() {
    int status = 0;
    if (pid_ > 0 && ::waitpid(pid_, &status, 0) == pid_) {
      code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
      pid_ = -1;
    }
    return code_;
  }
  /// The same without waiting; nothing while it runs.
  std::optional<int> ended() {
    int status = 0;
    if (pid_ > 0 && ::waitpid(pid_, &status, WNOHANG) == pid_) {
      code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
      pid_ = -1;
    }
    return pid_ > 0 ? std::nullopt : std::optional(code_);
  }
  void signal(int number) const { ::kill(pid_, number); }
  pid_t pid() const { return pid_; }
  std::string out() const { return content(out_); }
  std::string err() const { return content(err_); }

 private:
  std::filesystem::path out_, err_;
  pid_t pid_ = -1;
  int code_ = -1;
};

}  // namespace lh::test
