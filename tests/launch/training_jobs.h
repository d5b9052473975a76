// Training jobs of several processes, under the launcher and as srun or torchrun start them.
#pragma once

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <functional>
#include <memory>

#include "dist/socket.h"
#include "launch/launcher.h"

namespace lh::test {

using Words = std::vector<std::string>;

inline constexpr const char* kRecipe = LH_SOURCE_DIR "/recipes/smoke/smoke_cpu.yaml";

inline Words operator+(Words a, const Words& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

inline void prepare(const Folder& folder, int words = 3000) {
  std::string text;
  for (int i = 0; i < words; ++i) text += fmt::format("word{} ", i * i % 97);
  put(folder / "text.txt", text);
  const std::string command = fmt::format("{} data prepare {} --output {} >/dev/null 2>&1", LH_BINARY,
                                          (folder / "text.txt").string(), (folder / "train.h5").string());
  REQUIRE(std::system(command.c_str()) == 0);
}

/// `longhand train` without the program's name.
inline Words train(const Folder& folder, const Words& more = {}) {
  return Words{"train", kRecipe, "--set", "run.out_dir=" + (folder / "run").string(), "--set",
               "data.train=[{path: " + (folder / "train.h5").string() + "}]", "--set", "data.valid=[]", "--set",
               "eval.every_steps=0", "--set", "run.device=cpu"} + more;
}

inline uint16_t a_free_port() {
  return Socket::listen("127.0.0.1", 0).port();
}

/// How a job ended.
struct End {
  std::vector<int> codes;  // of the launcher, or of each rank
  std::string output;      // stdout and stderr of all
  double seconds = 0;
};

/// The launcher with so many workers on one node.
inline End under_launcher(const Folder& folder, const Words& options, const Words& program,
                   const Words& environment = {}) {
  const Timer timer;
  Launcher launcher(folder, "launcher", options + Words{"--"} + program,
                    Words{"OMP_NUM_THREADS=1"} + environment);
  REQUIRE(wait_for([&] { return launcher.ended().has_value(); }, 60));
  return {{launcher.wait()}, launcher.out() + launcher.err(), timer.seconds()};
}

/// One process as srun or torchrun would start it; all write to one file.
class Rank {
 public:
  Rank(const Folder& folder, int rank, int size, uint16_t port, Words words, Words environment = {}) {
    environment = Words{"RANK=" + std::to_string(rank), "WORLD_SIZE=" + std::to_string(size),
                        "LOCAL_RANK=" + std::to_string(rank), "LOCAL_WORLD_SIZE=" + std::to_string(size),
                        "MASTER_ADDR=127.0.0.1", "MASTER_PORT=" + std::to_string(port), "OMP_NUM_THREADS=1"} +
                  environment;
    pid_ = ::fork();
    if (pid_ != 0) return;
    const std::string file = (folder / "ranks.log").string();
    ::dup2(::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644), 1);
    ::dup2(1, 2);
    for (std::string& line : environment) ::putenv(line.data());
    if (!words[0].starts_with('/')) words.insert(words.begin(), LH_BINARY);
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  ~Rank() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
  }
  Rank(const Rank&) = delete;
  Rank& operator=(const Rank&) = delete;

  pid_t pid() const { return pid_; }
  /// Its exit code, or 128 + the signal that killed it; -1 when it runs too long.
  int wait(double seconds = 60) {
    int status = 0;
    if (!wait_for([&] { return ::waitpid(pid_, &status, WNOHANG) == pid_; }, seconds)) return -1;
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  pid_t pid_ = -1;
};

/// All ranks by hand, of longhand or of the program that their first word is; `words` and `environment` may differ from
/// rank to rank.
inline End by_hand(const Folder& folder, int size, const std::function<Words(int)>& words,
            const std::function<Words(int)>& environment = [](int) { return Words{}; },
            uint16_t port = a_free_port()) {
  const Timer timer;
  std::filesystem::remove(folder / "ranks.log");
  std::vector<std::unique_ptr<Rank>> ranks;
  for (int r = 0; r < size; ++r)
    ranks.push_back(std::make_unique<Rank>(folder, r, size, port, words(r), environment(r)));
  End end;
  for (auto& rank : ranks) end.codes.push_back(rank->wait());
  end.output = content(folder / "ranks.log");
  end.seconds = timer.seconds();
  return end;
}

/// Processes whose command line names the folder.
inline std::vector<pid_t> processes_of(const Folder& folder) {
  std::vector<pid_t> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const pid_t pid = std::atoi(entry.path().filename().c_str());
    if (pid > 0 && pid != ::getpid() && alive(pid) &&
        contains(content(entry.path() / "cmdline"), folder.path().string()))
      found.push_back(pid);
  }
  return found;
}

/// One message that holds all `parts`, from one process; all ended with `code` and none is left.
inline void check_one_message(const Folder& folder, const End& end, int code, const Words& parts,
                              bool launched = false) {
  CAPTURE(end.output);
  for (const int ended : end.codes) CHECK(ended == code);
  std::istringstream lines(end.output);
  int messages = 0, reports = 0;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("error: [launch]")) {
      ++reports;
      CHECK(contains(line, "root cause: rank "));
      CHECK(contains(line, "with the error above"));
    } else if (line.starts_with("error: ")) {
      ++messages;
      for (const std::string& part : parts) CHECK_MESSAGE(contains(line, part), part);
    }
  }
  CHECK(messages == 1);
  CHECK(reports == (launched ? 1 : 0));
  CHECK(processes_of(folder).empty());
}

}  // namespace lh::test
