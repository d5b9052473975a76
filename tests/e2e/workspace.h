// A folder of its own with a small prepared corpus, and the binary as a user runs it in there.
#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/philox.h"

namespace lh::test {

namespace fs = std::filesystem;

struct Outcome {
  int code = 0;  // exit code, or 128 + signal
  std::string output;
};

inline std::vector<std::string> with(std::vector<std::string> arguments, const std::vector<std::string>& more) {
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

/// The command that runs another one as several processes.
inline std::vector<std::string> together(int processes, const std::vector<std::string>& command) {
  return with({"launch", "--standalone", "--nproc-per-node", std::to_string(processes), "--"}, command);
}

/// A folder of its own, with a small prepared corpus, removed at the end.
class Workspace {
 public:
  Workspace() {
    static int number = 0;
    root = fs::temp_directory_path() / fmt::format("lh_e2e_{}_{}", ::getpid(), number++);
    fs::create_directories(root);
    std::ofstream text(root / "text.txt");
    Philox random(5);
    const char* const words[] = {"time", "long", "hand", "write", "read", "learns", "the", "a"};
    for (int i = 0; i < 20000; ++i) text << words[random.below(8)] << (i % 11 == 10 ? ".\n" : " ");
    text.close();
    REQUIRE(run({"data", "prepare", path("text.txt"), "--output", path("train.h5"),
                 "--valid-output", path("valid.h5"), "--valid-last-bytes", "4000"})
                .code == 0);
  }
  ~Workspace() { fs::remove_all(root); }

  std::string path(const std::string& name) const { return (root / name).string(); }

  /// Starts the binary; with kill_after >= 0 sends `signal` after so many seconds.
  Outcome run(std::vector<std::string> arguments, double kill_after = -1, int signal = 0) const {
    const std::string log = path("log");
    const pid_t child = fork();
    if (child == 0) {
      const int out = open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
      dup2(out, 1);
      dup2(out, 2);
      setenv("OMP_NUM_THREADS", "1", 1);
      std::vector<char*> argv = {const_cast<char*>(LH_BINARY)};
      for (std::string& argument : arguments) argv.push_back(argument.data());
      argv.push_back(nullptr);
      execv(LH_BINARY, argv.data());
      _exit(127);
    }
    if (kill_after >= 0) {
      usleep(static_cast<useconds_t>(kill_after * 1e6));
      kill(child, signal);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), read_file(log)};
  }

  /// Trains the smoke recipe into runs/<name>.
  std::vector<std::string> train(const std::string& name,
                                 const std::vector<std::string>& more = {}) const {
    std::vector<std::string> arguments = {"train",
                                          LH_SOURCE_DIR "/recipes/smoke/smoke_cpu.yaml",
                                          "--set",
                                          "run.out_dir=" + path(name),
                                          "--set",
                                          "data.train=[{path: " + path("train.h5") + "}]",
                                          "--set",
                                          "data.valid=[" + path("valid.h5") + "]"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }

  std::string weights(const std::string& name, int step) const {
    return read_file(root / name / "checkpoints" / fmt::format("step_{:08}", step) /
                     "model.safetensors");
  }
  std::string state(const std::string& name, int step) const {
    return read_file(root / name / "checkpoints" / fmt::format("step_{:08}", step) / "state.h5");
  }

  fs::path root;
};

/// Loss and gradient norm per step, and the last evaluation's loss.
inline std::vector<double> curve(const Workspace& w, const std::string& name) {
  std::vector<double> values;
  std::istringstream lines(read_file(w.root / name / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const auto record = nlohmann::json::parse(line);
    values.push_back(record.at("loss"));
    if (record.contains("grad_norm")) values.push_back(record.at("grad_norm"));
  }
  return values;
}

}  // namespace lh::test
