// Training on two and three hosts while workers, launchers, whole hosts and links fail at random
// moments. Whatever happens, the job ends in bounded time with the uninterrupted curve, bit for bit,
// and leaves no process behind. LH_CHAOS_ROUNDS (30, in 109 s on two cores of a Xeon, 2026-11-26) and LH_CHAOS_SEED
// (random, printed) choose the faults.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <random>

#include "launch/hosts.h"

namespace {

using namespace lh;
using namespace lh::test;
namespace fs = std::filesystem;

// The launchers' options, and what they promise: a silent node is lost after kLost seconds, its
// workers are dead kFailureGrace + 0.5 (the lease's margin) later, and then the others start again.
constexpr double kLost = 1.5;  // keep_alive_interval=0.5, three times
constexpr double kFailureGrace = 0.5;
constexpr double kNoticed = kLost + kFailureGrace + 0.5;
constexpr double kLoad = 12;  // for a machine that does other things too

enum class Fault { kWorker, kLauncher, kHost, kCut, kSlow };
constexpr const char* kFaults[] = {"a worker is killed", "a launcher is killed",
                                   "a host loses power", "a link is cut", "a link is slow"};

/// Each fault hits every place and both sizes within ten rounds.
struct Round {
  int hosts;
  Fault fault;
  int victim;
  double moment;  // seconds after the start
  double outage;  // seconds

  Round(int number, double whole, std::mt19937_64& random)
      : hosts(2 + number % 2), fault(static_cast<Fault>(number % 5)) {
    const auto between = [&](double low, double high) {
      return std::uniform_real_distribution(low, high)(random);
    };
    victim = std::uniform_int_distribution(0, hosts - 1)(random);
    moment = between(0, 0.9 * whole);
    outage = between(0.1, 2 * kLost);
  }
  /// Everything anew, once the fault is over and noticed.
  double bound(double whole) const { return moment + outage + 2 * kNoticed + 2 * whole + kLoad; }
  std::string str() const {
    return fmt::format("{} hosts, {} (host {}) after {:.2f} s, for {:.2f} s", hosts,
                       kFaults[static_cast<int>(fault)], victim, moment, outage);
  }
};

class Job {
 public:
  Job(const Folder& folder, const std::string& name, int hosts)
      : folder_(folder), name_(name), port_(20000 + std::rand() % 9000) {
    launchers_.resize(i(hosts));
    power_.assign(i(hosts), true);
    for (int host = 0; host < hosts; ++host) start(host);
  }

  /// Does what a scheduler or an operator does: starts again, with the same command, what has ended
  /// badly. True once the job is done.
  bool supervise() {
    const auto first = launchers_[0]->ended();
    if (first == 0) return true;
    // Without the coordinator's end nobody's is final.
    for (int host = 0; host < hosts(); ++host) {
      const auto code = at(host).ended();
      if (power_[i(host)] && code && (*code != 0 || first)) start(host);
    }
    return false;
  }

  /// After the coordinator's end: launchers that came back too late to take part still look for it.
  bool finish() {
    const auto all_ended = [&] {
      return std::all_of(launchers_.begin(), launchers_.end(), [](auto& l) { return l->ended(); });
    };
    if (wait_for(all_ended, 4)) return true;
    for (const auto& launcher : launchers_) launcher->signal(SIGTERM);
    return wait_for(all_ended, 5);
  }

  void hurt(const Round& round, std::mt19937_64& random) {
    switch (round.fault) {
      case Fault::kWorker: {
        std::vector<pid_t> workers;
        for (const Process& process : Hosts::processes(round.victim))
          if (process.words.size() > 1 && process.words[1] == "train")
            workers.push_back(process.pid);
        if (workers.empty()) return;  // not started yet
        ::kill(workers[std::uniform_int_distribution<size_t>(0, workers.size() - 1)(random)], SIGKILL);
        break;
      }
      case Fault::kLauncher:
        if (!at(round.victim).ended()) at(round.victim).signal(SIGKILL);
        break;
      case Fault::kHost:
        power_[i(round.victim)] = false;
        Hosts::cut_power(round.victim);
        break;
      case Fault::kCut: Hosts::plug(round.victim, false); break;
      case Fault::kSlow: CHECK(Hosts::slow_down(round.victim)); break;
    }
  }
  void heal(const Round& round) {
    if (round.fault == Fault::kSlow) Hosts::speed_up(round.victim);
    if (round.fault == Fault::kHost || round.fault == Fault::kCut) Hosts::plug(round.victim, true);
    power_[i(round.victim)] = true;
  }

  std::string log() const {
    std::string all;
    for (int n = 0; n < starts_; ++n) {
      const std::string file = fmt::format("{}.{}", name_, n);
      all += fmt::format("--- {}\n{}{}", file, content(folder_ / (file + ".out")),
                         content(folder_ / (file + ".err")));
    }
    return all;
  }
  int starts() const { return starts_; }

 private:
  static size_t i(int host) { return static_cast<size_t>(host); }
  Launcher& at(int host) { return *launchers_[i(host)]; }
  int hosts() const { return static_cast<int>(launchers_.size()); }

  void start(int host) {
    const auto in = [&](const std::string& file) { return (folder_ / file).string(); };
    // clang-format off
    const std::vector<std::string> words = {
        "--nnodes", std::to_string(launchers_.size()), "--node-rank", std::to_string(host),
        "--rdzv-endpoint", fmt::format("{}:{}", Hosts::address(0), port_), "--rdzv-id", name_,
        "--rdzv-conf", "keep_alive_interval=0.5,keep_alive_max_attempt=3",
        "--failure-grace", fmt::format("{}", kFailureGrace), "--max-restarts", "5", "--",
        "train", LH_SOURCE_DIR "/recipes/smoke/smoke_cpu.yaml", "--resume",
        "--set", "run.out_dir=" + in(name_), "--set", "run.device=cpu",
        "--set", "data.train=[{path: " + in("train.h5") + "}]",
        "--set", "data.valid=[" + in("valid.h5") + "]",
        "--set", "schedule.steps=40", "--set", "schedule.batch_tokens=768",
        "--set", "precision.micro_batch_tokens=256", "--set", "checkpoint.every_steps=2",
        "--set", "eval.every_steps=20", "--set", "eval.sample_tokens=0"};
    // clang-format on
    launchers_[i(host)].reset();
    launchers_[i(host)] = std::make_unique<Launcher>(
        folder_, fmt::format("{}.{}", name_, starts_++), words,
        std::vector<std::string>{"OMP_NUM_THREADS=1"}, Hosts::on(host));
  }

  const Folder& folder_;
  std::string name_;
  int port_;
  std::vector<std::unique_ptr<Launcher>> launchers_;
  std::vector<bool> power_;
  int starts_ = 0;
};

/// What a run leaves that does not depend on how fast it went.
std::string result_of(const Folder& folder, const std::string& name) {
  std::string curve;
  std::istringstream lines(content(folder / name / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const size_t timing = line.find(",\"tokens_per_second\"");
    curve += line.substr(0, timing) + "\n";
  }
  const std::string weights = content(folder / name / "checkpoints/step_00000040/model.safetensors");
  return weights.empty() ? "" : curve + weights;
}

void prepare(const Folder& folder) {
  std::string text;
  for (int n = 0; n < 6000; ++n) text += fmt::format("word{} ", n * n % 97);
  put(folder / "text.txt", text);
  REQUIRE(run_quietly(fmt::format(
      "{} data prepare {} --output {} --valid-output {} --valid-last-bytes 2000", LH_BINARY,
      (folder / "text.txt").string(), (folder / "train.h5").string(),
      (folder / "valid.h5").string())));
}

uint64_t number_from(const char* variable, uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

/// Processes that run although they should have ended; a guard needs a moment to do its work.
std::string orphans() {
  wait_for([] { return Hosts::all_processes().empty(); }, 3);
  std::string text;
  for (const Process& process : Hosts::all_processes())
    text += fmt::format("{}: {}\n", process.pid, fmt::join(process.words, " "));
  return text;
}

TEST_CASE("whatever fails and whenever the job ends in time with the uninterrupted curve") {
  if (!in_own_namespaces("whatever fails*")) return;
  const uint64_t seed = number_from("LH_CHAOS_SEED", std::random_device{}());
  const auto rounds = static_cast<int>(number_from("LH_CHAOS_ROUNDS", 30));
  std::mt19937_64 random(seed);
  std::srand(static_cast<unsigned>(seed));
  MESSAGE("LH_CHAOS_SEED=", seed, " LH_CHAOS_ROUNDS=", rounds);
  const Folder folder;
  prepare(folder);
  const Hosts hosts(3);
  const bool can_slow = Hosts::slow_down(0);
  Hosts::speed_up(0);
  if (!can_slow) MESSAGE("slow links are left out: tc has neither netem nor tbf here");

  double whole = 0;
  std::string want[4];
  for (const int size : {2, 3}) {
    const Timer timer;
    const std::string name = fmt::format("whole{}", size);
    Job job(folder, name, size);
    const bool done = wait_for([&] { return job.supervise(); }, 60) && job.finish();
    INFO(job.log());
    REQUIRE(done);
    CHECK(job.starts() == size);
    whole = std::max(whole, timer.seconds());
    want[size] = result_of(folder, name);
    REQUIRE(!want[size].empty());
  }
  MESSAGE("uninterrupted: ", whole, " s");

  for (int number = 0; number < rounds; ++number) {
    const Round round(number, whole, random);
    if (round.fault == Fault::kSlow && !can_slow) continue;
    const Timer timer;
    const std::string name = fmt::format("round{}", number);
    Job job(folder, name, round.hosts);
    bool hurt = false, healed = false, done = false;
    while (!done && timer.seconds() < round.bound(whole)) {
      if (!hurt && timer.seconds() > round.moment) hurt = (job.hurt(round, random), true);
      if (hurt && !healed && timer.seconds() > round.moment + round.outage)
        healed = (job.heal(round), true);
      done = job.supervise();
      ::usleep(20'000);
    }
    const double seconds = timer.seconds();
    if (hurt && !healed) job.heal(round);
    const bool finished = job.finish();
    MESSAGE("round ", number, ": ", round.str(), ": ended after ",
            fmt::format("{:.1f} s of at most {:.1f}; {} launchers were started", seconds,
                        round.bound(whole), job.starts()));
    INFO(round.str(), "\n", job.log());
    CHECK(done);
    CHECK(finished);
    CHECK(orphans() == "");
    // Not compared by CHECK itself: it would print the weights.
    const bool same = result_of(folder, name) == want[round.hosts];
    CHECK(same);
    if (!done || !finished) break;  // its processes would disturb the next round
    fs::remove_all(folder / name);
  }
}

}  // namespace
