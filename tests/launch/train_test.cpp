// longhand train under the launcher: a killed run starts again from its checkpoint, a signalled one
// saves; and what the launcher costs.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>

#include "launch/launcher.h"

namespace {

using namespace lh;
using namespace lh::test;
namespace fs = std::filesystem;

std::vector<std::string> train(const Folder& folder, const std::string& name) {
  return {"train", LH_SOURCE_DIR "/recipes/smoke/smoke_cpu.yaml",
          "--set", "run.out_dir=" + (folder / name).string(),
          "--set", "data.train=[{path: " + (folder / "train.h5").string() + "}]",
          "--set", "data.valid=[" + (folder / "valid.h5").string() + "]",
          "--set", "checkpoint.every_steps=20",
          "--set", "schedule.steps=100",
          "--set", "run.device=cpu"};
}

void prepare(const Folder& folder) {
  std::string text;
  for (int i = 0; i < 6000; ++i) text += fmt::format("word{} ", i * i % 97);
  put(folder / "text.txt", text);
  const std::string command = fmt::format(
      "{} data prepare {} --output {} --valid-output {} --valid-last-bytes 4000 >/dev/null 2>&1",
      LH_BINARY, (folder / "text.txt").string(), (folder / "train.h5").string(),
      (folder / "valid.h5").string());
  REQUIRE(std::system(command.c_str()) == 0);
}

std::string weights(const Folder& folder, const std::string& name) {
  return content(folder / name / "checkpoints/step_00000100/model.safetensors");
}

/// The process that runs `longhand train` for this launcher.
pid_t worker_of(pid_t launcher) {
  const std::string children = content(fmt::format("/proc/{0}/task/{0}/children", launcher));
  std::istringstream stream(children);
  for (std::string word; stream >> word;)
    // The other child is the guard, which looks like the launcher.
    if (!contains(content("/proc/" + word + "/cmdline"), "max-restarts")) return std::stoi(word);
  return 0;
}

TEST_CASE("a killed worker is restarted from its checkpoint and ends bitwise the same") {
  const Folder folder;
  prepare(folder);
  const auto words = [&](const std::string& name) {
    std::vector<std::string> all = {"--max-restarts", "3", "--"};
    for (const std::string& word : train(folder, name)) all.push_back(word);
    return all;
  };
  Launcher whole(folder, "whole.log", words("whole"), {"OMP_NUM_THREADS=1"});
  CHECK(whole.wait() == 0);
  INFO(whole.err());
  Launcher killed(folder, "killed.log", words("killed"), {"OMP_NUM_THREADS=1"});
  REQUIRE(wait_for([&] { return fs::exists(folder / "killed/checkpoints/step_00000020"); }));
  REQUIRE(::kill(worker_of(killed.pid()), SIGKILL) == 0);
  CHECK(killed.wait() == 0);
  INFO(killed.err());
  CHECK(
      contains(killed.err(), "was killed by SIGKILL (out of memory, or by hand); restart 1 of 3"));
  CHECK(weights(folder, "killed") == weights(folder, "whole"));
}

TEST_CASE("SIGTERM and SIGUSR1 to the launcher save and the same command goes on") {
  const Folder folder;
  prepare(folder);
  for (const int signal : {SIGTERM, SIGUSR1}) {
    const std::string name = fmt::format("run{}", signal);
    std::vector<std::string> words = {"--"};
    for (const std::string& word : train(folder, name)) words.push_back(word);
    words.push_back("--resume");
    Launcher stopped(folder, "stopped", words, {"OMP_NUM_THREADS=1"});
    REQUIRE(wait_for([&] { return fs::exists(folder / name / "checkpoints/step_00000020"); }));
    stopped.signal(signal);
    CHECK(stopped.wait() == 75);
    Launcher resumed(folder, "resumed", words, {"OMP_NUM_THREADS=1"});
    CHECK(resumed.wait() == 0);
    CHECK(!weights(folder, name).empty());
  }
}

TEST_CASE("the launcher adds far less than two seconds to the start of four processes") {
  const Folder folder;
  const auto file = (folder / "marks").string();
  const auto last_start = [&](const std::string& name, const std::string& workers) {
    fs::remove(file);
    const double before =
        std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
    Launcher launcher(folder, name,
                      {"--nproc-per-node", workers, "--", LH_WORKER, "mark", file, "up"});
    REQUIRE(launcher.wait() == 0);
    double last = 0;
    std::istringstream lines(content(file));
    for (std::string word; lines >> word >> word >> word >> word;)
      last = std::max(last, std::stod(word));
    return last - before;
  };
  const double one = last_start("one", "1"), four = last_start("four", "4");
  MESSAGE("seconds to the last worker's first line: ", one, " with one worker, ", four,
          " with four");
  CHECK(four - one < 1);
}

}  // namespace
