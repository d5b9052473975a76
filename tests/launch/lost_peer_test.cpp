// A process that leaves the order of the collectives while the job trains: dead, stopped or failing by itself. All end,
// in the time that LH_COMM_TIMEOUT gives, with one cause.
#include <doctest/doctest.h>

#include "launch/training_jobs.h"

namespace {

using namespace lh;
using namespace lh::test;
namespace fs = std::filesystem;

constexpr int kRanks = 3;

/// A run that does not end by itself.
Words long_run(const Folder& folder) {
  return train(folder, {"--set", "schedule.steps=100000", "--set", "checkpoint.every_steps=0"});
}

bool trains(const Folder& folder) {
  return wait_for([&] { return contains(content(folder / "run/metrics.jsonl"), "\"step\":3"); }, 30);
}

/// The job by hand, with `act` on the victim once it trains; how the others end.
End after(const Folder& folder, int victim, const std::function<void(pid_t)>& act) {
  const uint16_t port = a_free_port();
  fs::remove(folder / "ranks.log");
  std::vector<std::unique_ptr<Rank>> ranks;
  for (int r = 0; r < kRanks; ++r)
    ranks.push_back(std::make_unique<Rank>(folder, r, kRanks, port, long_run(folder), Words{"LH_COMM_TIMEOUT=2"}));
  REQUIRE(trains(folder));
  const Timer timer;
  act(ranks[static_cast<size_t>(victim)]->pid());
  End end;
  for (int r = 0; r < kRanks; ++r)
    if (r != victim) end.codes.push_back(ranks[static_cast<size_t>(r)]->wait());
  end.seconds = timer.seconds();
  ranks.clear();
  end.output = content(folder / "ranks.log");
  fs::remove_all(folder / "run");
  return end;
}

TEST_CASE("a killed or stopped rank is named once with the collective and the step") {
  const Folder folder;
  prepare(folder);
  for (const int signal : {SIGKILL, SIGSTOP}) {
    const End end = after(folder, 1, [&](pid_t pid) { ::kill(pid, signal); });
    check_one_message(folder, end, 1, {"lost rank 1 (host ", " in ", ", step ", ": dead, stopped or cut off"});
    CHECK(end.seconds < (signal == SIGKILL ? 6 : 10));
    if (signal == SIGSTOP) CHECK(end.seconds > 1.5);
  }
}

TEST_CASE("rank 0 serves the store: who loses it says so") {
  const Folder folder;
  prepare(folder);
  const End end = after(folder, 0, [&](pid_t pid) { ::kill(pid, SIGSTOP); });
  CAPTURE(end.output);
  for (const int code : end.codes) CHECK(code == 1);
  CHECK(contains(end.output, "lost rank 0, which serves the job's store, in "));
  CHECK(end.seconds < 12);
}

TEST_CASE("a stopped rank ends a launched job after the time limit with one root cause") {
  const Folder folder;
  prepare(folder);
  for (const int victim : {1, 0}) {
    const fs::path pids = folder / "pids";
    fs::remove(pids);
    const std::string line = fmt::format("[ $RANK = {} ] && echo $$ > {}; exec \"$@\"", victim, pids.string());
    Launcher launcher(folder, "launcher",
                      Words{"--standalone", "--nproc-per-node", std::to_string(kRanks), "--", "sh", "-c", line, "sh",
                            LH_BINARY} + long_run(folder),
                      {"OMP_NUM_THREADS=1", "LH_COMM_TIMEOUT=2"});
    REQUIRE(trains(folder));
    const Timer timer;
    REQUIRE(::kill(pids_in(pids).at(0), SIGSTOP) == 0);
    const int code = launcher.wait();
    const double seconds = timer.seconds();
    CHECK(seconds > 1.5);
    CHECK(seconds < 12);
    const std::string output = launcher.out() + launcher.err();
    CAPTURE(output);
    CHECK(code == 1);
    CHECK(count_of(output, "root cause: ") == 1);
    CHECK(contains(output, "with the error above"));
    CHECK(contains(output, victim == 0 ? "lost rank 0, which serves" : "lost rank 1 (host "));
    CHECK(contains(output, ", step "));
    if (victim != 0) CHECK(count_of(output, "lost rank 1") == 1);
    CHECK(processes_of(folder).empty());
    fs::remove_all(folder / "run");
  }
}

TEST_CASE("a rank that fails by itself is the cause and the others follow with its code") {
  const Folder folder;
  prepare(folder);
  // The leader cannot write its checkpoint while the others go on to the next step.
  const Words words = train(folder, {"--set", "checkpoint.every_steps=3", "--set", "schedule.steps=100000"});
  const auto obstruct = [&] {
    fs::remove_all(folder / "run");
    fs::create_directories(folder / "run");
    put(folder / "run/checkpoints", "a file");
  };
  const Words parts = {"run/checkpoints"};
  obstruct();
  const End launched = under_launcher(folder, {"--standalone", "--nproc-per-node", "3"}, words);
  check_one_message(folder, launched, 1, parts, true);
  CHECK(contains(launched.output, "root cause: rank 0 "));
  CHECK(contains(launched.output, "(2 other workers ended because of it)"));
  obstruct();
  const End hand = by_hand(folder, kRanks, [&](int) { return words; });
  check_one_message(folder, hand, 1, parts);
  CHECK(launched.seconds + hand.seconds < 30);
}

}  // namespace
