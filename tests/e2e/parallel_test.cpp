// Training by several processes as a user starts it: every split trains the same, and a run goes on with another
// number of processes.
#include <cmath>

#include "workspace.h"

namespace {

using namespace lh;
using namespace lh::test;

void check_same(const std::vector<double>& got, const std::vector<double>& want) {
  REQUIRE(got.size() == want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    CAPTURE(i);
    CHECK(got[i] == doctest::Approx(want[i]).epsilon(2e-6));  // f32, sums in another order
  }
}

const std::vector<std::string> kShort = {"--set", "schedule.steps=6", "--set", "eval.every_steps=3",
                                         "--set", "checkpoint.every_steps=3", "--set",
                                         "eval.sample_tokens=0"};

}  // namespace

TEST_CASE("every mesh of processes trains and evaluates as one process does") {
  const Workspace w;
  const Outcome alone = w.run(w.train("alone", kShort));
  INFO(alone.output);
  REQUIRE(alone.code == 0);
  const std::vector<double> want = curve(w, "alone");
  struct Split {
    int processes;
    std::vector<std::string> sets;
  };
  const std::vector<Split> splits = {
      {2, {}},                                                   // data parallel
      {3, {}},                                                   // uneven shares
      {2, {"--set", "parallel.zero=0"}},                         // an optimizer each
      {2, {"--set", "parallel.context=2"}},                      // zigzag
      {3, {"--set", "parallel.context=3", "--set", "parallel.layout=contiguous"}},
      {4, {"--set", "parallel.context=2", "--set", "model.mixers.full.context=heads"}},
      {2, {"--set", "parallel.context=2", "--set", "precision.recompute=block"}},
  };
  for (size_t i = 0; i < splits.size(); ++i) {
    CAPTURE(i);
    const std::string name = fmt::format("split{}", i);
    const Outcome o =
        w.run(together(splits[i].processes, w.train(name, with(kShort, splits[i].sets))));
    INFO(o.output);
    REQUIRE(o.code == 0);
    check_same(curve(w, name), want);
    // One process writes and prints.
    CHECK(o.output.find("done: 6 steps") == o.output.rfind("done: 6 steps"));
  }
}

/// A number of each evaluation.
std::vector<double> reported(const Workspace& w, const std::string& name, const std::string& key) {
  std::vector<double> values;
  std::istringstream lines(read_file(w.root / name / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);)
    if (const auto record = nlohmann::json::parse(line); record.contains(key))
      values.push_back(record.at(key));
  return values;
}

TEST_CASE("processes that share a run report of its mixers what one process reports") {
  const Workspace w;
  const auto parallax = with(kShort, {"--set", "model.mixers.full={kind: parallax, probe_gate: true}"});
  REQUIRE(w.run(w.train("alone", parallax)).code == 0);
  for (const char* context : {"1", "2"}) {
    const std::string name = fmt::format("context{}", context);
    const Outcome o = w.run(together(
        2, with(w.train(name, parallax), {"--set", fmt::format("parallel.context={}", context)})));
    INFO(o.output);
    REQUIRE(o.code == 0);
    for (const char* key : {"correction_ratio", "probe_norm", "probe_gate", "probe_stable_rank",
                            "query_stable_rank", "key_stable_rank"}) {
      CAPTURE(key);
      const std::vector<double> got = reported(w, name, key), want = reported(w, "alone", key);
      REQUIRE(want.size() == 2);
      REQUIRE(got.size() == 2);
      for (size_t i = 0; i < got.size(); ++i) {
        CHECK(want[i] > 0);
        CHECK(got[i] == doctest::Approx(want[i]).epsilon(1e-5));  // f32, sums in another order
      }
    }
  }
  const Outcome o = w.run({"eval", (w.root / "alone").string()});
  INFO(o.output);
  CHECK(o.code == 0);
  CHECK(o.output.find("correction_ratio  key_stable_rank  probe_gate  probe_norm") != std::string::npos);
}

TEST_CASE("processes that share a run count the keys that gates keep together") {
  const Workspace w;
  // The threshold is near the first utilities, so that some keys are kept and some are not.
  const auto pruned = with(kShort, {"--set", "model.mixers.full={kind: sp_kv, window: 16, threshold: 0.9933}"});
  const auto density = [&](const std::string& name) { return reported(w, name, "kv_density"); };
  REQUIRE(w.run(w.train("alone", pruned)).code == 0);
  const std::vector<double> want = density("alone");
  REQUIRE(want.size() == 2);
  CHECK(want[0] > 0);
  CHECK(want[0] < 1);
  for (const char* context : {"1", "2"}) {
    const std::string name = fmt::format("context{}", context);
    const Outcome o = w.run(together(
        2, with(w.train(name, pruned), {"--set", fmt::format("parallel.context={}", context)})));
    INFO(o.output);
    REQUIRE(o.code == 0);
    const std::vector<double> got = density(name);
    REQUIRE(got.size() == want.size());
    // A utility that rounding moves across the threshold is one key of many.
    for (size_t i = 0; i < got.size(); ++i) CHECK(std::abs(got[i] - want[i]) < 1e-3);
  }
}

TEST_CASE("a run goes on with another number of processes as if it had not stopped") {
  const Workspace w;
  const auto steady = with(kShort, {"--set", "schedule.kind=constant", "--set", "schedule.warmup_steps=0"});
  REQUIRE(w.run(w.train("whole", steady)).code == 0);
  REQUIRE(w.run(together(2, with(w.train("parts", steady), {"--set", "schedule.steps=3"}))).code == 0);
  const Outcome more = w.run(
      together(4, with(w.train("parts", steady), {"--resume", "--set", "parallel.context=2"})));
  INFO(more.output);
  REQUIRE(more.code == 0);
  CHECK(more.output.find("from step 3") != std::string::npos);
  check_same(curve(w, "parts"), curve(w, "whole"));
}

TEST_CASE("cp-parity compares every split and fails when one differs by more than it may") {
  const Workspace w;
  std::vector<std::string> command = w.train("unused");
  command[0] = "cp-parity";
  const Outcome equal = w.run(with(command, {"--cp", "1,2,4", "--steps", "1"}));
  INFO(equal.output);
  CHECK(equal.code == 0);
  CHECK(equal.output.find("equal: the largest relative difference") != std::string::npos);
  const Outcome differs = w.run(with(command, {"--cp", "3", "--steps", "1", "--tolerance", "1e-30"}));
  CHECK(differs.code == 1);
  CHECK(differs.output.find("DIFFERENT") != std::string::npos);
  const Outcome muon = w.run(with(command, {"--cp", "2", "--steps", "2", "--set", "optim.kind=muon",
                                            "--set", "parallel.layout=contiguous"}));
  CHECK(muon.code == 0);
  // Four processes cannot trade two key heads: they gather keys.
  const Outcome heads = w.run(with(command, {"--cp", "2,4", "--set", "model.mixers.full.context=heads"}));
  CHECK(heads.code == 2);
  CHECK(heads.output.find("multiples of parallel.context 4") != std::string::npos);
  CHECK(heads.output.find("grad norm") == std::string::npos);  // before anything is computed
}

TEST_CASE("cp-parity of no step or with a tolerance that nothing meets is no verdict") {
  const Workspace w;
  std::vector<std::string> command = w.train("unused");
  command[0] = "cp-parity";
  for (const auto& [option, value] : {std::pair{"--steps", "0"}, {"--steps", "-1"}, {"--tolerance", "0"}}) {
    const Outcome o = w.run(with(command, {option, value}));
    INFO(o.output);
    CHECK(o.code == 2);
    CHECK(o.output.find(std::string(option) + ": expected ") != std::string::npos);
  }
}

TEST_CASE("every mixer is the same under every split, whether keys are gathered or heads traded") {
  const Workspace w;
  std::vector<std::string> command = w.train("unused");
  command[0] = "cp-parity";
  for (const char* mixer : {"kind: sp_kv, window: 16", "kind: parallax", "kind: parallax, window: 20, sinks: 2",
                            "kind: parallax, uniform_weights: true", "kind: lla, ridge: 1"})
    for (const auto& [context, splits] :
         {std::pair{"auto", "2,4"}, {"gather", "2,4"}, {"heads", "2"}}) {
      const Outcome o = w.run(with(
          command, {"--cp", splits, "--steps", "1", "--set",
                    fmt::format("model.mixers.full={{{}, context: {}}}", mixer, context)}));
      INFO(mixer, context, o.output);
      CHECK(o.code == 0);
    }
}

TEST_CASE("gates are the same under every split in all their phases") {
  const Workspace w;
  std::vector<std::string> command = w.train("unused");
  command[0] = "cp-parity";
  for (const auto& [mixer, gates] : {std::pair{"window: 16", "{soft_steps: 1, anneal_steps: 1}"},
                                     {"window: 16, weighted: true", "{soft_steps: 1, anneal_steps: 1}"},
                                     {"window: 16", "{soft_steps: 2, kind: bernoulli}"}}) {
    const Outcome o = w.run(with(
        command, {"--cp", "2,4", "--steps", "3", "--set", "schedule.steps=3", "--set", "schedule.warmup_steps=0",
                  "--set", fmt::format("schedule.gates={}", gates), "--set",
                  fmt::format("model.mixers.full={{kind: sp_kv, {}}}", mixer)}));
    INFO(mixer, gates, o.output);
    CHECK(o.code == 0);
  }
}

TEST_CASE("processes whose rows have no target train as one") {
  const Workspace w;
  // An example of 114 tokens asks for its last 32: of four pieces in order the first two have no target, and a
  // sequence holds one example.
  const Outcome o = w.run({"cp-parity", LH_SOURCE_DIR "/recipes/tasks/palindrome.yaml", "--cp", "2,3,4", "--steps", "1",
                           "--set", "parallel.layout=contiguous", "--set", "schedule.batch_tokens=228"});
  INFO(o.output);
  CHECK(o.code == 0);
}

TEST_CASE("attention by its definitions is the same under every split") {
  const Workspace w;
  std::vector<std::string> command = w.train("unused");
  command[0] = "cp-parity";
  setenv("LH_NO_FUSED", "1", 1);
  for (const char* mixer : {"kind: softmax", "kind: sp_kv, window: 16", "kind: parallax, window: 20, sinks: 2"})
    for (const auto& [context, splits] : {std::pair{"gather", "2,4"}, {"heads", "2"}}) {
      const Outcome o = w.run(with(
          command, {"--cp", splits, "--steps", "1", "--set",
                    fmt::format("model.mixers.full={{{}, context: {}}}", mixer, context)}));
      INFO(mixer, context, o.output);
      CHECK(o.code == 0);
    }
  unsetenv("LH_NO_FUSED");
}

TEST_CASE("a mesh that does not fit is refused by one message and its exit code") {
  const Workspace w;
  const Outcome o = w.run(together(3, w.train("bad", {"--set", "parallel.context=2"})));
  CHECK(o.code != 0);
  CHECK(o.output.find("3 processes do not make whole groups of parallel.context 2") != std::string::npos);
  const Outcome heads = w.run(w.train("bad", {"--set", "parallel.context=4", "--set",
                                              "model.mixers.full.context=heads"}));
  CHECK(heads.code == 2);
  CHECK(heads.output.find("multiples of parallel.context 4") != std::string::npos);
  std::vector<std::string> parity = w.train("unused", {"--cp", "0"});
  parity[0] = "cp-parity";
  const Outcome none = w.run(parity);
  CHECK(none.code == 2);
  CHECK(none.output.find("--cp: expected counts of at least 1, got 0") != std::string::npos);
  CHECK(none.output.find("grad norm") == std::string::npos);  // no table without rows
  const Outcome zero = w.run(w.train("bad", {"--set", "parallel.zero=2"}));
  CHECK(zero.code == 2);
  CHECK(zero.output.find("parallel.zero") != std::string::npos);
  const Outcome few = w.run(together(3, w.train("bad", {"--set", "schedule.batch_tokens=256", "--set",
                                                        "precision.micro_batch_tokens=128"})));
  CHECK(few.code != 0);
  CHECK(few.output.find("a step of 2 sequences cannot feed 3 data groups") != std::string::npos);
}
