// Wrong recipes: every problem at once, each at its place and with what to do.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include "config_support.h"

namespace {

using namespace lh;
using namespace lh::test;

TEST_CASE("the small recipe of these tests is valid") {
  CHECK(errors(small_recipe()) == "");
}

TEST_CASE("every problem is reported in one error sorted by place") {
  const std::string text =
      "run: {name: x, sed: 3}\n"                     // 1
      "model:\n"                                     // 2
      "  hidden_size: 0\n"                           // 3
      "  num_layers: two\n"                          // 4
      "  num_heads: 4\n"                             // 5
      "data:\n"                                      // 6
      "  train: [{path: a.h5, wieght: 1}]\n"         // 7
      "  seq_tokens: 128\n"                          // 8
      "  seq_tokens: 64\n"                           // 9
      "optim: {beta1: 1.5, kind: adam}\n"            // 10
      "schedule: {batch_tokens: 1280, steps: -1}\n"  // 11
      "evil: 1\n";                                   // 12
  const std::string message = errors(text);
  INFO(message);
  CHECK(contains(message, "r.yaml:1:16: unknown key 'sed' in run (did you mean 'seed'?)"));
  CHECK(contains(message, "r.yaml:2:1: model.intermediate_size: is required"));
  CHECK(contains(message, "r.yaml:3:16: model.hidden_size: expected above 0, got 0"));
  CHECK(contains(message, "r.yaml:4:15: model.num_layers: expected an integer, got 'two'"));
  CHECK(contains(message, "r.yaml:7:24: unknown key 'wieght' in data.train.0"));
  CHECK(contains(message, "r.yaml:9:3: data.seq_tokens: duplicate key, already set at line 8"));
  CHECK(contains(message, "r.yaml:10:16: optim.beta1: expected at least 0 and below 1, got 1.5"));
  CHECK(contains(message, "r.yaml:10:27: optim.kind: expected one of adamw, muon"));
  CHECK(contains(message, "r.yaml:11:39: schedule.steps: expected above 0, got -1"));
  CHECK(contains(message, "r.yaml:12:1: unknown key 'evil' in a recipe (did you mean 'eval'?)"));
  CHECK(lines(message) == 10);
  CHECK(message.find("r.yaml:9") < message.find("r.yaml:10"));
}

TEST_CASE("columns count characters and not bytes") {
  const std::string message =
      errors(std::string("run: {name: äöü€𝄞, nmae: x}\n").append(small_recipe()));
  CHECK_MESSAGE(contains(message, "r.yaml:1:20: unknown key 'nmae'"), message);
}

TEST_CASE("rules between keys name all values that matter") {
  struct Case {
    std::vector<std::string> sets;
    const char* expected;
  };
  for (const Case& c : std::vector<Case>{
           {{"schedule.batch_tokens=1000"}, "multiple of data.seq_tokens 128, got 1000"},
           {{"data.seq_tokens=512"}, "at most model.max_position 256, got 512"},
           {{"model.num_heads=5"}, "divisor of hidden_size 64"},
           {{"model.num_kv_heads=3"}, "divisor of num_heads 4, got 3"},
           {{"model.head_dim=7"}, "even number"},
           {{"model.schedule=[attn, attn, attn]"}, "divides num_layers 2, got 3"},
           {{"model.schedule=[atn]"}, "'atn' is not one of model.mixers (did you mean 'attn'?)"},
           {{"model.mixers.attn.kind=sliding_window"}, "needs a window of at least 1"},
           {{"model.mixers.attn.window=4"}, "belong to sliding_window"},
           {{"model.mixers.attn.kind=sp_kv"}, "an sp_kv mixer needs a window of at least 1"},
           {{"model.mixers.attn={kind: sp_kv, window: 4, sinks: 1}"}, "which has a window alone"},
           {{"model.mixers.attn.threshold=0.4"}, "belongs to kind sp_kv, not to softmax"},
           {{"model.mixers.attn={kind: sp_kv, window: 4, threshold: 1}"},
            "threshold: expected above 0 and below 1, got 1"},
           {{"model.mixers.attn={kind: sp_kv, window: 128}"},
            "less than data.seq_tokens 128, got 128"},
           {{"schedule.gates.soft_steps=5"}, "the model uses none"},
           {{"model.mixers.attn.global_kv_heads=[0]"}, "belongs to kind sp_kv, not to softmax"},
           {{"model.mixers.attn={kind: sp_kv, window: 4, global_kv_heads: [0, 4]}"},
            "expected different heads from 0 to 3, got 4"},
           {{"model.mixers.attn={kind: sp_kv, window: 4, global_kv_heads: [1, 1]}"},
            "expected different heads from 0 to 3, got 1"},
           {{"model.mixers.attn={kind: sp_kv, window: 4}", "schedule.gates.soft_steps=11"},
            "soft_steps: expected at most schedule.steps 10, got 11"},
           {{"model.mixers.attn={kind: sp_kv, window: 4}", "schedule.gates.soft_steps=8",
             "schedule.gates.anneal_steps=3"},
            "anneal_steps: expected at most the 2 steps after the 8 soft ones"},
           {{"model.mixers.attn={kind: sp_kv, window: 4, threshold: 0}"},
            "threshold: expected above 0 and below 1, got 0"},
           {{"model.mixers.attn={kind: sp_kv, window: 200}"},
            "the predictor learns from keys outside the window alone"},
           {{"model.mixers.attn={kind: parallax, window: 129}"},
            "mixers.attn.window: expected at most data.seq_tokens 128 (or 0 for no window), got 129"},
           {{"model.mixers.attn={kind: lla, window: 200}"}, "expected at most data.seq_tokens 128"},
           {{"model.mixers.attn.utility_clip=0.001"}, "belongs to kind sp_kv, not to softmax"},
           {{"model.mixers.attn.weighted=true"}, "belongs to kind sp_kv, not to softmax"},
           {{"model.mixers.attn={kind: sp_kv, window: 4, utility_clip: 0.01}"},
            "utility_clip: expected below 0.00669, got 0.01"},
           {{"model.mixers.attn={kind: sp_kv, window: 4, utility_clip: 0.5}"},
            "utility_clip: expected at least 0 and below 0.5, got 0.5"},
           {{"model.mixers.attn={kind: sp_kv, window: 4, utility_clip: 0.002, threshold: 0.001}"},
            "expected a threshold between 0.002 and 0.998, got 0.001"},
           {{"schedule.gates.kind=bernoulli"}, "the model uses none"},
           {{"schedule.gates.density_weight=0.1"}, "the model uses none"},
           {{"model.mixers.attn={kind: sp_kv, window: 4}", "schedule.gates.kind=hard"},
            "expected one of soft, bernoulli"},
           {{"model.mixers.attn={kind: sp_kv, window: 4}", "schedule.gates.kind=bernoulli",
             "schedule.gates.anneal_steps=1"},
            "anneal_steps: expected 0 with bernoulli gates"},
           {{"model.mixers.attn={kind: sp_kv, window: 4, weighted: true}",
             "schedule.gates.kind=bernoulli"},
            "weighted: expected false with bernoulli gates"},
           {{"model.mixers.attn={kind: sp_kv, window: 4}", "schedule.gates.soft_steps=-1"},
            "soft_steps: expected at least 0, got -1"},
           {{"init.fresh=[\"*.mlp.*\"]"}, "init.fresh: belongs to init.path, which is not set"},
           {{"init.ignore=[\"*.mlp.*\"]"}, "init.ignore: belongs to init.path, which is not set"},
           {{"init.pth=runs/x"}, "did you mean 'path'"},
           {{"model.mixers.attn.kind=parallax", "model.mixers.attn.sinks=4"}, "sinks need a window"},
           {{"model.mixers.attn.zero_probe=true"},
            "mixers.attn.zero_probe: belongs to kind parallax, not to softmax"},
           {{"model.mixers.attn={kind: lla, probe_gate: true}"},
            "probe_gate: belongs to kind parallax, not to lla"},
           {{"model.mixers.attn={kind: sliding_window, window: 4, probe_rope: false}"},
            "probe_rope: belongs to kind parallax, not to sliding_window"},
           {{"model.mixers.attn={kind: sp_kv, window: 4, uniform_weights: true}"},
            "uniform_weights: belongs to kind parallax, not to sp_kv"},
           {{"model.mixers.attn={kind: parallax, zero_probe: true, uniform_weights: true}"},
            "zero_probe: a probe of zeros begins as softmax attention, which uniform_weights leaves out"},
           {{"model.mixers.attn.kind=parallax", "model.mixers.attn.ridge=1"},
            "mixers.attn.ridge: belongs to kind lla, not to parallax"},
           {{"model.mixers.attn.frozen_ridge=true"},
            "frozen_ridge: belongs to kind lla, not to softmax"},
           {{"model.mixers.attn={kind: lla, ridge: 0}"}, "mixers.attn.ridge: expected above 0, got 0"},
           {{"model.mixers.attn={kind: lla, ridge: -1.5}"},
            "mixers.attn.ridge: expected above 0, got -1.5"},
           {{"model.mixers.attn={kind: lla, ridge: .nan}"}, "mixers.attn.ridge: expected a"},
           {{"schedule.warmup_steps=11"}, "at most schedule.steps 10, got 11"},
           {{"schedule.kind=wsd"}, "wsd needs decay_steps"},
           {{"schedule.kind=wsd", "schedule.decay_steps=9", "schedule.warmup_steps=2"},
            "exceed steps 10"},
           {{"schedule.decay_steps=3"}, "belongs to kind wsd"},
           {{"schedule.weight_decay_power=2"}, "belongs to kind wsd"},
           {{"precision.micro_batch_tokens=384"}, "divides schedule.batch_tokens 1024, got 384"},
           {{"eval.every_steps=5"}, "needs data.valid"},
           {{"model.rope_scaling={type: longrope, short_factor: [1, 1, 1, 1, 1, 1, 1, 1]}"},
            "long_factor: expected head_dim / 2 = 8 numbers, got 0"},
           {{"model.rope_scaling={type: llama3, high_freq_factor: 1}"},
            "more than low_freq_factor 1"},
           {{"parallel.context=7", "model.mixers.attn.context=heads"},
            "multiples of parallel.context 7"},
           {{"data.train=[]"}, "--set data.train=[]: data.train: expected at least one entry"},
           {{"data.train=[{path: a.h5, weight: 0}]"}, "data.train.0.weight: expected above 0"},
           {{"data.train=[{weight: 2}]"}, "data.train.0: expected a path of token shards or a task"},
           {{"data.train.0.task={kind: palindrome}"}, "has a path and a task; expected one of them"},
           {{"data.train=[{task: {}}]"}, "data.train.0.task.kind: is required: expected one of"},
           {{"data.train=[{task: {kind: palindrom}}]"}, "(did you mean 'palindrome'?)"},
           {{"data.train=[{task: {kind: mqar, vocab: 64, pears: 4}}]"}, "(did you mean 'pairs'?)"},
           {{"data.train=[{task: {kind: mqar, gap: 4}}]"},
            "data.train.0.task.gap: does not belong to the task mqar; remove it"},
           {{"data.train=[{task: {kind: mqar, vocab: 14}}]"},
            "task.pairs: expected at most the 7 keys that half of vocab 14 makes, got 8"},
           {{"data.train=[{task: {kind: mqar, length: 30}}]"},
            "task.length: expected an even number of at least 4 tokens for each of 8 pairs, got 30"},
           {{"data.train=[{task: {kind: mqar, length: 33, pairs: 2}}]"}, "an even number"},
           {{"data.train=[{task: {kind: mqar, length: 130, vocab: 64}}]"},
            "seq_tokens: expected at least the 130 tokens of an example of mqar, got 128"},
           {{"data.train=[{task: {kind: needle}}]"}, "at least the 1024 tokens"},
           {{"data.train=[{task: {kind: needle, length: 27, pairs: 2}}]"},
            "task.length: expected at least 28 tokens for 2 needles"},
           {{"data.train=[{task: {kind: needle, length: 120, pairs: 3, vocab: 2, "
             "value_tokens: 1}}]"},
            "as many needles as vocab 2 has keys, got 3"},
           {{"data.train=[{task: {kind: needle, length: 120, depth: 1.5}}]"},
            "task.depth: expected at least 0 and at most 1, got 1.5"},
           {{"data.train=[{task: {kind: selective_copy, length: 32}}]"},
            "task.length: expected at least 33 tokens for 16 items"},
           {{"data.train=[{task: {kind: palindrome, items: 0}}]"}, "task.items: expected at least 1"},
           {{"data.train=[{task: {kind: palindrome}}]", "data.tokenizer=integers:102"},
            "data.tokenizer: expected integers:103 or more for the 102 symbols of palindrome and the "
            "end of a document, got integers:102"},
           {{"data.train=[{task: {kind: mqar}}]"}, "expected integers:8194 or more"},
           {{"data.tokenizer=integers:many"}, "expected integers:N with N from 2 to 1073741824"},
           {{"data.tokenizer=integers:1"}, "expected integers:N"},
           {{"data.valid_examples=5"}, "data.valid_examples: expected 0, as data.train has no task"},
       }) {
    const std::string message = errors(small_recipe(), c.sets);
    CHECK_MESSAGE(contains(message, c.expected), message);
    CHECK_MESSAGE(lines(message) == 1, message);
  }
}

TEST_CASE("a window that is much of the sequence is a warning") {
  const auto warnings = [](const std::string& kind, const std::string& window) {
    return recipe_warnings(parse_recipe_text(
        small_recipe(), "r.yaml",
        std::vector<std::string>{"model.mixers.attn={kind: " + kind + ", window: " + window + "}"}));
  };
  CHECK(warnings("sp_kv", "16").empty());
  REQUIRE(warnings("sp_kv", "17").size() == 1);
  CHECK(contains(warnings("sp_kv", "17")[0], "model.mixers.attn.window: 17 tokens are much of"));
  CHECK(warnings("sliding_window", "128").empty());
  REQUIRE(warnings("sliding_window", "129").size() == 1);
  CHECK(contains(warnings("sliding_window", "129")[0], "window: 129 tokens are more than data.seq_tokens 128"));
}

TEST_CASE("the gates' phases resolve to shares of the run") {
  GateScheduleConfig gates;
  CHECK(gates.resolved_soft_steps(100) == 75);
  CHECK(gates.resolved_anneal_steps(100) == 5);
  CHECK(gates.resolved_anneal_steps(100'000) == 500);
  gates.soft_steps = 40;
  CHECK(gates.resolved_anneal_steps(100) == 12);
  gates.kind = "bernoulli";
  CHECK(gates.resolved_anneal_steps(100) == 0);
  gates.kind = "soft";
  gates.anneal_steps = 60;
  CHECK(gates.resolved_anneal_steps(100) == 60);
}

TEST_CASE("values far outside are refused without overflow") {
  for (const char* key :
       {"model.num_heads", "model.hidden_size", "model.num_layers", "model.head_dim",
        "schedule.steps", "schedule.warmup_steps", "schedule.batch_tokens", "data.seq_tokens",
        "precision.micro_batch_tokens"})
    for (const char* value : {"-9223372036854775808", "-1", "0", "9223372036854775807"})
      errors(small_recipe(), {std::string(key) + "=" + value, "schedule.kind=wsd",
                              "schedule.decay_steps=9223372036854775807"});
}

TEST_CASE("tasks far outside are refused without overflow") {
  for (const std::string& kind : task_kinds())
    for (const char* key : {"length", "items", "gap", "pairs", "vocab", "value_tokens", "dimension",
                            "bins"})
      for (const char* value :
           {"-9223372036854775808", "0", "999999999", "9223372036854775807"})
        CHECK(errors(small_recipe(), {fmt::format("data.train=[{{task: {{kind: {}, {}: {}}}}}]", kind,
                                                  key, value)}) != "");
}

TEST_CASE("text that is no YAML is an error at its place") {
  CHECK(contains(errors("run: [\n"), "r.yaml:2:1: not valid YAML"));
  CHECK(contains(errors(""), "an empty file"));
  CHECK(contains(errors("# only a comment\n"), "r.yaml:1:1: expected sections"));
  CHECK(contains(errors("- a\n- b\n"), "expected sections with keys, got a list"));
  CHECK(contains(errors("just text\n"), "expected sections with keys, got"));
  CHECK(errors(std::string("run:\n\tname: x\n").append(small_recipe())) != "");
  CHECK(errors(small_recipe() + "---\nrun: {}\n") != "");
  CHECK(errors(std::string("run: {name: \xff\xfe}\n").append(small_recipe())) != "");
  CHECK(errors(std::string("run: {name: a\0b}\n", 17) + small_recipe()) != "");
}

TEST_CASE("hostile YAML ends soon with an error") {
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 12; ++i) {
    bomb += fmt::format("a{0}: &a{0} [", i);
    for (int j = 0; j < 10; ++j) bomb += fmt::format("*a{}, ", i - 1);
    bomb += "x]\n";
  }
  CHECK(errors(bomb) != "");
  CHECK(errors(std::string(100'000, '[')) != "");
  std::string deep;
  for (int i = 0; i < 2000; ++i) deep += std::string(static_cast<size_t>(i), ' ') + "a:\n";
  CHECK(errors(deep) != "");
  std::string wide;
  for (int i = 0; i < 30'000; ++i) wide += fmt::format("k{}: 1\n", i);
  CHECK(errors(wide) != "");
}

TEST_CASE("harmless YAML variety is accepted") {
  std::string crlf;
  for (const char c : small_recipe()) crlf += c == '\n' ? std::string("\r\n") : std::string(1, c);
  CHECK(errors(crlf) == "");
  CHECK(errors(std::string("\xef\xbb\xbf").append(small_recipe())) == "");
  CHECK(errors(std::string("---\n").append(small_recipe())) == "");
  CHECK(errors(small_recipe() + "eval:\n") == "");  // a section with everything at its default
  std::string anchored = small_recipe();
  anchored.replace(anchored.find("64"), 2, "&width 64");
  anchored.replace(anchored.find("128\n  num_layers"), 3, "*width");
  CHECK(parse(anchored).model.intermediate_size == 64);
}

}  // namespace
