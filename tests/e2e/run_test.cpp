// The binary as a user runs it: prepare, train, kill, resume, evaluate, generate, and wrong inputs.
#include "workspace.h"

#include "base/timer.h"

namespace {

using namespace lh;
using namespace lh::test;

TEST_CASE("train evaluate and generate work from the command line") {
  const Workspace w;
  const Outcome trained = w.run(w.train("run"));
  INFO(trained.output);
  REQUIRE(trained.code == 0);
  CHECK(trained.output.find("eval at step 30") != std::string::npos);
  const Outcome evaluated = w.run({"eval", w.path("run")});
  CHECK(evaluated.code == 0);
  CHECK(evaluated.output.find("bits per byte") != std::string::npos);
  const std::vector<std::string> generate = {"generate", w.path("run"), "--prompt", "the long ",
                                             "--tokens", "20", "--seed", "4"};
  const Outcome generated = w.run(generate);
  CHECK(generated.code == 0);
  CHECK(generated.output.starts_with("the long "));
  const auto text = [](const Outcome& o) { return o.output.substr(0, o.output.find("[generate]")); };
  CHECK(text(w.run(generate)) == text(generated));
}

TEST_CASE("a run killed at random moments resumes to bitwise the uninterrupted result") {
  const Workspace w;
  const Timer timer;
  REQUIRE(w.run(w.train("whole", {"--set", "checkpoint.every_steps=3"})).code == 0);
  const double whole_seconds = timer.seconds();
  Philox random(static_cast<uint64_t>(::getpid()));
  const auto again =
      w.train("killed", {"--set", "checkpoint.every_steps=3", "--resume"});
  int kills = 0;
  for (int attempt = 0; attempt < 20; ++attempt) {
    const Outcome outcome = w.run(again, random.uniform() * whole_seconds, SIGKILL);
    if (outcome.code == 128 + SIGKILL) ++kills;
    else CHECK_MESSAGE(outcome.code == 0, outcome.output);
  }
  const Outcome last = w.run(again);
  CHECK_MESSAGE(last.code == 0, last.output);
  CHECK(kills > 0);
  CHECK(w.weights("killed", 30) == w.weights("whole", 30));
  CHECK(w.state("killed", 30) == w.state("whole", 30));
}

TEST_CASE("a stop signal in any phase saves and exits with 75 and the resumed run is bitwise the same") {
  const Workspace w;
  // Evaluations, samples and saves on most steps, so that signals land in every phase.
  const std::vector<std::string> phases = {"--set", "eval.every_steps=2", "--set",
                                           "eval.sample_every_steps=3", "--set",
                                           "checkpoint.every_steps=4", "--resume"};
  const Timer timer;
  REQUIRE(w.run(w.train("whole", phases)).code == 0);
  const double whole_seconds = timer.seconds();
  constexpr int kMoments = 14;
  int stops = 0;
  for (int i = 0; i < kMoments; ++i) {
    const int signal = i % 2 == 0 ? SIGTERM : SIGINT;
    const std::string name = fmt::format("stopped{}", i);
    const double moment = (i + 0.5) / kMoments * whole_seconds;
    const Outcome stopped = w.run(w.train(name, phases), moment, signal);
    INFO("signal ", signal, " after ", moment, " s: exit code ", stopped.code, "\n",
         stopped.output);
    // Before main() runs the system's default action holds, and nothing was written yet.
    const bool unborn = stopped.code == 128 + signal && !fs::exists(w.root / name);
    CHECK((stopped.code == 75 || stopped.code == 0 || unborn));
    if (stopped.code == 75) {
      ++stops;
      CHECK(stopped.output.find("saved to") != std::string::npos);
    }
    const Outcome resumed = w.run(w.train(name, phases));
    CHECK_MESSAGE(resumed.code == 0, resumed.output);
    CHECK(w.weights(name, 30) == w.weights("whole", 30));
    CHECK(w.state(name, 30) == w.state("whole", 30));
    const auto best = [&](const std::string& run) {
      return read_file(w.root / run / "checkpoints/best");
    };
    CHECK(best(name) == best("whole"));
    fs::remove_all(w.root / name);
  }
  CHECK(stops > kMoments / 2);
}

TEST_CASE("a mixture of text and tasks resumes bitwise and reports the accuracy of each task") {
  const Workspace w;
  const auto train = [&](const std::string& name, const std::vector<std::string>& more) {
    std::vector<std::string> all = {
        "--set", "run.device=cpu", "--set", "data.valid_examples=10", "--set",
        "data.train=[{path: " + w.path("train.h5") +
            ", weight: 2}, {task: {kind: palindrome, items: 20, gap: 3}}, {task: {kind: "
            "selective_copy, length: 50, items: 5}, weight: 0.5}]",
        "--set", "checkpoint.every_steps=7"};
    all.insert(all.end(), more.begin(), more.end());
    return w.run(w.train(name, all));
  };
  const Outcome whole = train("whole", {});
  INFO(whole.output);
  REQUIRE(whole.code == 0);
  CHECK(whole.output.find("eval at step 30: palindrome: loss ") != std::string::npos);
  CHECK(whole.output.find("of 10 examples") != std::string::npos);
  const std::string metrics = read_file(w.root / "whole/metrics.jsonl");
  CHECK(metrics.find("\"task\":\"selective_copy\"") != std::string::npos);
  CHECK(metrics.find("\"accuracy\"") != std::string::npos);
  const Outcome evaluated = w.run({"eval", w.path("whole")});
  CHECK(evaluated.output.find("bits per byte") != std::string::npos);
  CHECK(evaluated.output.find("selective_copy: loss ") != std::string::npos);

  // Lost after step 14; then with another task, which is another run.
  const std::vector<std::string> keep = {"--set", "checkpoint.keep_last=9"};
  REQUIRE(train("cut", keep).code == 0);
  for (const char* later : {"step_00000021", "step_00000028", "step_00000030"})
    fs::remove_all(w.root / "cut/checkpoints" / later);
  const Outcome other = train("cut", {"--resume", "--set", "data.train.1.task.gap=4"});
  CHECK(other.code == 2);
  CHECK(other.output.find("gap 4") != std::string::npos);
  const Outcome resumed = train("cut", {"--resume"});
  INFO(resumed.output);
  CHECK(resumed.output.find("from step 14") != std::string::npos);
  CHECK(w.weights("cut", 30) == w.weights("whole", 30));
}

TEST_CASE("a task is shown and a run on symbols prints numbers") {
  const Workspace w;
  const Outcome shown = w.run({"data", "task", "mqar", "--set", "length=32", "--samples", "2"});
  CHECK(shown.code == 0);
  CHECK(shown.output.find("mqar length 32 pairs 8") != std::string::npos);
  CHECK(shown.output.find('[') != std::string::npos);
  const Outcome unknown = w.run({"data", "task", "needel"});
  CHECK(unknown.code == 2);
  CHECK(unknown.output.find("did you mean 'needle'") != std::string::npos);

  const Outcome trained = w.run({"train", LH_SOURCE_DIR "/recipes/tasks/palindrome.yaml", "--set",
                                 "run.device=cpu", "--set", "run.out_dir=" + w.path("p"), "--set",
                                 "schedule.steps=2", "--set", "schedule.warmup_steps=1", "--set",
                                 "data.valid_examples=8", "--set", "schedule.batch_tokens=456"});
  INFO(trained.output);
  CHECK(trained.code == 0);
  CHECK(trained.output.find("bits per byte") == std::string::npos);
  const Outcome generated = w.run({"generate", w.path("p"), "--prompt", "1 2 3 ", "--tokens", "5",
                                   "--ignore-end"});
  CHECK(generated.code == 0);
  CHECK(generated.output.starts_with("1 2 3 "));
  const Outcome words = w.run({"generate", w.path("p"), "--prompt", "one two"});
  CHECK(words.code == 2);
  CHECK(words.output.find("expected whole numbers from 0 to 101") != std::string::npos);
}

TEST_CASE("attention by its definitions trains as the kernels do") {
  const Workspace w;
  int runs = 0;
  const auto train = [&](const std::string& kind) {
    const std::string name = fmt::format("run{}", runs++);
    const Outcome o = w.run(w.train(name, {"--set", "schedule.steps=6", "--set", "eval.every_steps=3", "--set",
                                           "run.device=cpu", "--set", "model.mixers.full={kind: " + kind + "}"}));
    INFO(o.output);
    REQUIRE(o.code == 0);
    return curve(w, name);
  };
  for (const char* kind : {"softmax", "parallax", "sp_kv, window: 16"}) {
    const auto fused = train(kind);
    setenv("LH_NO_FUSED", "1", 1);
    const auto defined = train(kind);
    unsetenv("LH_NO_FUSED");
    REQUIRE(fused.size() > 6);
    REQUIRE(defined.size() == fused.size());
    CHECK(fused != defined);  // other bits
    // f32 against f64 in attention alone: a few units of 6e-8 a sum, and the steps between let them grow.
    for (size_t i = 0; i < fused.size(); ++i)
      CHECK(defined[i] == doctest::Approx(fused[i]).epsilon(1e-4));
  }
  setenv("LH_NO_FUSED", "yes", 1);
  const Outcome wrong = w.run(w.train("wrong"));
  unsetenv("LH_NO_FUSED");
  CHECK(wrong.code == 2);
  CHECK(wrong.output.find("LH_NO_FUSED: expected 0 or 1, got 'yes'") != std::string::npos);
  CHECK(!fs::exists(w.root / "wrong"));
}

TEST_CASE("accumulation does not change the loss beyond rounding") {
  const Workspace w;
  REQUIRE(w.run(w.train("one", {"--set", "precision.micro_batch_tokens=1024"})).code == 0);
  REQUIRE(w.run(w.train("four", {"--set", "precision.micro_batch_tokens=256"})).code == 0);
  const auto first_loss = [&](const std::string& name) {
    const std::string metrics = read_file(w.root / name / "metrics.jsonl");
    return std::stod(metrics.substr(metrics.find("\"loss\":") + 7));
  };
  CHECK(first_loss("one") == doctest::Approx(first_loss("four")).epsilon(1e-6));
}

TEST_CASE("wrong inputs are refused with what to do and nothing is lost") {
  const Workspace w;
  REQUIRE(w.run(w.train("run")).code == 0);
  const Outcome twice = w.run(w.train("run"));
  CHECK(twice.code == 2);
  CHECK(twice.output.find("--resume") != std::string::npos);

  const Outcome typo = w.run(w.train("x", {"--set", "optim.learning_rat=1"}));
  CHECK(typo.code == 2);
  CHECK(typo.output.find("did you mean 'learning_rate'") != std::string::npos);

  const Outcome missing = w.run({"generate", w.path("nothing")});
  CHECK(missing.code == 1);
  CHECK(missing.output.find("expected a checkpoint folder") != std::string::npos);

  const fs::path weights = w.root / "run/checkpoints/step_00000030/state.h5";
  std::string bytes = read_file(weights);
  bytes[bytes.size() / 2] ^= 1;
  std::ofstream(weights, std::ios::binary) << bytes;
  const Outcome damaged = w.run({"eval", (w.root / "run/checkpoints/step_00000030").string()});
  CHECK(damaged.code == 1);
  CHECK(damaged.output.find("digest differs") != std::string::npos);
  const Outcome resumed = w.run(w.train("run", {"--resume"}));
  CHECK(resumed.code == 0);
  CHECK(resumed.output.find("skipping") != std::string::npos);

  CHECK(w.run({"train"}).code == 2);
  CHECK(w.run({"no-such-command"}).code == 2);
  CHECK(w.run({"--help"}).code == 0);
}

TEST_CASE("a loss that is not finite stops before the update and can be replayed") {
  const Workspace w;
  const Outcome bad =
      w.run(w.train("bad", {"--set", "optim.learning_rate=1e30", "--set", "optim.clip_norm=0"}));
  INFO(bad.output);
  CHECK(bad.code == 1);
  const size_t at = bad.output.find("--replay ");
  REQUIRE(at != std::string::npos);
  const std::string rest = bad.output.substr(at + 9);
  const Outcome replayed = w.run({"train", "--replay", rest.substr(0, rest.find('\n'))});
  CHECK(replayed.code == 1);
  CHECK(replayed.output.find("first bad tensor") != std::string::npos);
}

TEST_CASE("a replay does not take a closed key for a bad number") {
  const Workspace w;
  // Only the last norm learns, and what it learns makes its output overflow, long after gates have closed keys.
  const Outcome bad = w.run(w.train(
      "bad", {"--set", "optim.learning_rate=3e38", "--set", "optim.clip_norm=0", "--set",
              "optim.groups=[{pattern: '*', freeze: true}, {pattern: model.norm.weight, freeze: false}]", "--set",
              "model.mixers.full={kind: sp_kv, window: 16}", "--set", "schedule.gates.kind=bernoulli", "--set",
              "run.device=cpu"}));
  INFO(bad.output);
  REQUIRE(bad.code == 1);
  const size_t at = bad.output.find("--replay ");
  REQUIRE(at != std::string::npos);
  const std::string rest = bad.output.substr(at + 9);
  const std::vector<std::string> replay = {"train", "--replay", rest.substr(0, rest.find('\n'))};
  for (const char* defined : {"0", "1"}) {
    setenv("LH_NO_FUSED", defined, 1);
    const std::string seen = w.run(replay).output;
    unsetenv("LH_NO_FUSED");
    CHECK_MESSAGE(seen.find(", rms_norm: ") != std::string::npos, seen);
  }
}

TEST_CASE("every shipped recipe is valid and its dump means the same") {
  const Workspace w;
  for (const auto& entry : fs::recursive_directory_iterator(LH_SOURCE_DIR "/recipes")) {
    if (entry.path().extension() != ".yaml") continue;
    const Outcome first = w.run({"recipe", "check", entry.path().string(), "--dump"});
    INFO(first.output);
    REQUIRE(first.code == 0);
    std::ofstream(w.root / "dumped.yaml") << first.output;
    CHECK(w.run({"recipe", "check", w.path("dumped.yaml"), "--dump"}).output == first.output);
  }
}

TEST_CASE("doctor and recipe explain print what they promise") {
  const Workspace w;
  CHECK(w.run({"doctor"}).output.find("AMX-BF16") != std::string::npos);
  CHECK(w.run({"recipe", "explain", "optim.learning_rate"}).output.find("number") !=
        std::string::npos);
  CHECK(w.run({"recipe", "explain", "optim.learning_rat"}).code == 2);
}

}  // namespace
