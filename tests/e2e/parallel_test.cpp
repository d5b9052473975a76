// Training by several processes as a user starts it: every split trains the same, and a run goes on with another
// number of processes.
#include <nlohmann/json.hpp>

#include <cmath>
#include <sstream>

#include "workspace.h"

namespace {

using namespace lh;
using namespace lh::test;

std::vector<std::string> together(int processes, std::vector<std::string> train) {
  std::vector<std::string> command = {"launch", "--standalone", "--nproc-per-node",
                                      std::to_string(processes), "--"};
  command.insert(command.end(), train.begin(), train.end());
  return command;
}

/// Loss and gradient norm per step, and the last evaluation's loss.
std::vector<double> curve(const Workspace& w, const std::string& name) {
  std::vector<double> values;
  std::istringstream lines(read_file(w.root / name / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const auto record = nlohmann::json::parse(line);
    values.push_back(record.at("loss"));
    if (record.contains("grad_norm")) values.push_back(record.at("grad_norm"));
  }
  return values;
}

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

std::vector<std::string> with(std::vector<std::string> arguments, std::vector<std::string> more) {
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

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

TEST_CASE("processes that share a run count the keys that gates keep together") {
  const Workspace w;
  // The threshold is near the first utilities, so that some keys are kept and some are not.
  const auto pruned = with(kShort, {"--set", "model.mixers.full={kind: sp_kv, window: 16, threshold: 0.9933}"});
  const auto density = [&](const std::string& name) {
    std::vector<double> shares;
    std::istringstream lines(read_file(w.root / name / "metrics.jsonl"));
    for (std::string line; std::getline(lines, line);)
      if (const auto record = nlohmann::json::parse(line); record.contains("kv_density"))
        shares.push_back(record.at("kv_density"));
    return shares;
  };
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
  const Outcome pruned =
      w.run(with(command, {"--cp", "2", "--steps", "1", "--set",
                           "model.mixers.full={kind: sp_kv, window: 16}"}));
  INFO(pruned.output);
  CHECK(pruned.code == 0);
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
  const Outcome zero = w.run(w.train("bad", {"--set", "parallel.zero=2"}));
  CHECK(zero.code == 2);
  CHECK(zero.output.find("parallel.zero") != std::string::npos);
  const Outcome few = w.run(together(3, w.train("bad", {"--set", "schedule.batch_tokens=256", "--set",
                                                        "precision.micro_batch_tokens=128"})));
  CHECK(few.code != 0);
  CHECK(few.output.find("a step of 2 sequences cannot feed 3 data groups") != std::string::npos);
}

namespace {

/// Bytes in the last column of the line "total ... at peak" of a memory table: the last one in the text.
double peak_bytes(const std::string& text) {
  const size_t line = text.rfind("\ntotal ");
  REQUIRE(line != std::string::npos);
  std::istringstream words(text.substr(line + 7));
  double now = 0, peak = 0;
  std::string now_unit, unit;
  words >> now >> now_unit >> peak >> unit;
  return peak * (unit == "GiB" ? 1 << 30 : unit == "MiB" ? 1 << 20 : unit == "KiB" ? 1 << 10 : 1);
}

}  // namespace

TEST_CASE("the memory that a plan predicts is what a run then needs") {
  const Workspace w;
  for (const auto& [processes, context] : {std::pair{1, 1}, {2, 1}, {2, 2}, {4, 2}}) {
    CAPTURE(processes);
    CAPTURE(context);
    // Larger than the smoke model, so that scratch memory is small beside it.
    const std::vector<std::string> sets = {
        "--set", fmt::format("parallel.context={}", context), "--set", "model.hidden_size=256",
        "--set", "model.intermediate_size=512", "--set", "schedule.steps=2", "--set",
        "schedule.warmup_steps=0", "--set",
        "eval.sample_tokens=0", "--set", "eval.every_steps=0", "--set", "data.valid=[]"};
    const std::string name = fmt::format("run{}_{}", processes, context);
    const Outcome run = w.run(together(processes, with(w.train(name), sets)));
    INFO(run.output);
    REQUIRE(run.code == 0);
    std::vector<std::string> plan = {"recipe", "plan", LH_SOURCE_DIR "/recipes/smoke/smoke_cpu.yaml",
                                     "--world", std::to_string(processes), "--compute", "fp32",
                                     "--vocabulary", "257"};
    const Outcome predicted = w.run(with(plan, sets));
    INFO(predicted.output);
    REQUIRE(predicted.code == 0);
    CHECK(peak_bytes(predicted.output) == doctest::Approx(peak_bytes(run.output)).epsilon(0.05));
  }
  const Outcome large = w.run({"recipe", "plan", LH_SOURCE_DIR "/recipes/pretrain/llama_124m.yaml",
                               "--world", "64", "--set", "parallel.context=8", "--set",
                               "schedule.batch_tokens=524288", "--set",
                               "precision.micro_batch_tokens=1024"});
  INFO(large.output);
  CHECK(large.code == 0);
  CHECK(large.output.find("64 processes: 8 data groups of 8") != std::string::npos);
  // 64 micro-batches of one sequence each: its keys travel. Longer ones hold whole documents in each piece, and
  // nothing would.
  CHECK(large.output.find("64 micro-batches each") != std::string::npos);
  CHECK(large.output.find("context, all-to-all") != std::string::npos);
  CHECK(large.output.find("gradients, reduce-scatter") != std::string::npos);
  CHECK(large.output.find("parameters, all-gather") != std::string::npos);
}
