// What `eval` and `recipe hybrid` do with the gates of a trained sp_kv model.
#include <algorithm>

#include "workspace.h"

namespace {

using namespace lh;
using namespace lh::test;

/// The number after `name` at the beginning of a line.
double figure(const std::string& output, const std::string& name) {
  const size_t at = output.find("\n" + name);
  REQUIRE_MESSAGE(at != std::string::npos, output);
  return std::stod(output.substr(at + 1 + name.size()));
}

/// Trained so fast that one head's gates close while the other's stay open.
std::vector<std::string> gates_command(const Workspace& w) {
  return w.train("run", {"--set", "run.device=cpu", "--set", "model.mixers.full={kind: sp_kv, window: 16}",
                         "--set", "optim.groups=[{pattern: '*.utility.*', lr_multiplier: 30}]"});
}

Outcome train_gates(const Workspace& w) {
  return w.run(gates_command(w));
}

TEST_CASE("thresholds and controls of gates are chosen when a model is evaluated") {
  const Workspace w;
  const Outcome trained = train_gates(w);
  REQUIRE_MESSAGE(trained.code == 0, trained.output);
  const auto evaluate = [&](const std::vector<std::string>& options) {
    const Outcome o = w.run(with({"eval", w.path("run")}, options));
    REQUIRE_MESSAGE(o.code == 0, o.output);
    return o.output;
  };
  const auto density = [&](const std::vector<std::string>& options) {
    return figure(evaluate(options), "kv density");
  };
  const double learned = density({});
  CHECK(learned > 0.05);
  CHECK(learned < 0.95);
  CHECK(density({"--kv-threshold", "1e-30"}) == 1);
  CHECK(density({"--kv-threshold", "0.999999999"}) < learned);
  // Random gates are drawn with each head's chance: of the 8000 gates of the held-out 4000 bytes three standard deviations
  // are at most 0.017, 4 % of a half. Shuffled ones are as many, but some of them land where no query counts them.
  CHECK(density({"--gate-control", "random"}) == doctest::Approx(learned).epsilon(0.05));
  CHECK(density({"--gate-control", "shuffled"}) == doctest::Approx(learned).epsilon(0.05));
  const double all_open = figure(evaluate({"--kv-threshold", "1e-30"}), "loss");
  CHECK(figure(evaluate({}), "loss") != all_open);
  CHECK(figure(evaluate({"--soft-gates"}), "loss") != all_open);

  for (const auto& [options, expected] : std::vector<std::pair<std::vector<std::string>, std::string>>{
           {{"--kv-threshold", "2"}, "--kv-threshold: expected above 0 and below 1, got 2"},
           {{"--kv-threshold", "0"}, "--kv-threshold: expected above 0 and below 1, got 0"},
           {{"--soft-gates", "--gate-control", "random"}, "leave out --soft-gates"},
           {{"--gate-control", "chance"}, "--gate-control"}}) {
    const Outcome wrong = w.run(with({"eval", w.path("run")}, options));
    CHECK(wrong.code == 2);
    CHECK_MESSAGE(wrong.output.find(expected) != std::string::npos, wrong.output);
  }
}

TEST_CASE("a longer schedule does not open gates again that were hard, unless it keeps their steps") {
  const Workspace w;
  const Outcome trained = train_gates(w);
  REQUIRE_MESSAGE(trained.code == 0, trained.output);
  const auto longer = [&](const std::vector<std::string>& more) {
    std::vector<std::string> words = gates_command(w);
    words.push_back("--resume");
    words.insert(words.end(), more.begin(), more.end());
    return w.run(words);
  };
  const Outcome again = longer({"--set", "schedule.steps=40"});
  INFO(again.output);
  CHECK(again.code == 2);
  CHECK(again.output.find("its gates were hard at step ") != std::string::npos);
  const size_t at = again.output.find("schedule.gates.soft_steps=");
  REQUIRE(at != std::string::npos);
  const std::string soft = again.output.substr(at, again.output.find(' ', at) - at);
  const size_t then = again.output.find("schedule.gates.anneal_steps=");
  const std::string anneal = again.output.substr(then, again.output.find(',', then) - then);
  const Outcome kept = longer({"--set", "schedule.steps=40", "--set", soft, "--set", anneal});
  CHECK_MESSAGE(kept.code == 0, kept.output);
}

TEST_CASE("a hybrid recipe gives the densest heads every key and trains") {
  const Workspace w;
  const Outcome trained = train_gates(w);
  REQUIRE_MESSAGE(trained.code == 0, trained.output);
  const std::vector<std::string> hybrid = {"recipe",         "hybrid", w.path("run"),        "--global-heads", "1",
                                           "--out", w.path("hybrid.yaml")};
  const Outcome made = w.run(hybrid);
  REQUIRE_MESSAGE(made.code == 0, made.output);
  // Heads come by density, the denser of the two is global, and the recipe says so.
  const size_t first = made.output.find("kv head "), second = made.output.find("kv head ", first + 1);
  REQUIRE(second != std::string::npos);
  const std::string densest = made.output.substr(first + 8, 1);
  CHECK(made.output.substr(first + 9, 8) == ", global");
  CHECK(made.output.substr(second + 9, 8) != ", global");
  std::string recipe = read_file(w.root / "hybrid.yaml");
  recipe.erase(std::remove_if(recipe.begin(), recipe.end(), [](char c) { return c == ' ' || c == '\n'; }), recipe.end());
  CHECK_MESSAGE((recipe.find("global_kv_heads:[" + densest + "]") != std::string::npos ||
                 recipe.find("global_kv_heads:-" + densest) != std::string::npos),
                recipe);
  const Outcome again = w.run(hybrid);
  CHECK(again.code == 2);
  CHECK(again.output.find("hybrid.yaml exists") != std::string::npos);
  const Outcome run = w.run({"train", w.path("hybrid.yaml"), "--set", "run.out_dir=" + w.path("hybrid"), "--set",
                             "schedule.steps=4"});
  CHECK_MESSAGE(run.code == 0, run.output);
}

}  // namespace
