// What must hold between the keys of a recipe, after each key's own rule (rules.h).
#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "base/text.h"
#include "config/load.h"
#include "config/number.h"
#include "config/rules.h"

namespace lh {
namespace {

/// True when `whole` is a multiple of `part`. Broken values fail here without harm: their own rule
/// has been reported, and then load.cpp drops the rules about the same key.
bool divides(int64_t part, int64_t whole) {
  return part > 0 && whole >= 0 && whole % part == 0;
}

/// Collects broken rules under a key prefix.
class Rules {
 public:
  explicit Rules(std::string prefix) : prefix_(std::move(prefix)) {}

  /// The rule of each field by itself.
  template <typename Struct>
  void check_fields(const Struct& section) {
    RuleChecker checker(problems);
    Struct::visit(checker, section);
    for (RecipeProblem& problem : problems)
      for (std::string& key : problem.keys) key = prefix_ + key;
  }
  void check(bool holds, std::initializer_list<std::string> keys, std::string message) {
    if (holds) return;
    RecipeProblem problem{{}, std::move(message)};
    for (const std::string& key : keys) problem.keys.push_back(prefix_ + key);
    problems.push_back(std::move(problem));
  }
  /// A problem found by rules about a section of this one.
  void add(RecipeProblem problem) {
    for (std::string& key : problem.keys) key = prefix_ + key;
    problems.push_back(std::move(problem));
  }
  std::vector<RecipeProblem> problems;

 private:
  std::string prefix_;
};

void check_mixer(const std::string& at, const MixerConfig& mixer, Rules& rules) {
  const std::string& kind = mixer.kind;
  const bool pruned = kind == "sp_kv";
  rules.check((kind != "sliding_window" && !pruned) || mixer.window > 0, {at + ".window", at},
              fmt::format("{} {} mixer needs a window of at least 1 token", pruned ? "an" : "a",
                          kind));
  rules.check(kind != "softmax" || (mixer.window == 0 && mixer.sinks == 0), {at + ".window", at},
              fmt::format("window and sinks belong to sliding_window, not to {}", kind));
  rules.check(!pruned || mixer.sinks == 0, {at + ".sinks", at},
              "sinks do not belong to sp_kv, which has a window alone");
  rules.check(mixer.sinks == 0 || mixer.window > 0 || kind == "softmax" || kind == "sliding_window",
              {at + ".sinks", at}, "sinks need a window: without one every token is visible");
  // Keys of one kind must keep their defaults in the others.
  const MixerConfig unset;
  for (const auto& [key, owner, changed] : {
           std::tuple{"probe_rope", "parallax", mixer.probe_rope != unset.probe_rope},
           {"probe_gate", "parallax", mixer.probe_gate != unset.probe_gate},
           {"zero_probe", "parallax", mixer.zero_probe != unset.zero_probe},
           {"uniform_weights", "parallax", mixer.uniform_weights != unset.uniform_weights},
           {"ridge", "lla", mixer.ridge != unset.ridge},
           {"frozen_ridge", "lla", mixer.frozen_ridge != unset.frozen_ridge},
           {"threshold", "sp_kv", mixer.threshold != unset.threshold},
           {"utility_hidden", "sp_kv", mixer.utility_hidden != unset.utility_hidden},
           {"global_kv_heads", "sp_kv", !mixer.global_kv_heads.empty()},
           {"utility_clip", "sp_kv", mixer.utility_clip != unset.utility_clip},
           {"weighted", "sp_kv", mixer.weighted != unset.weighted},
       })
    rules.check(!changed || kind == owner, {at + "." + key, at},
                fmt::format("belongs to kind {}, not to {}", owner, kind));
  rules.check(!mixer.zero_probe || !mixer.uniform_weights, {at + ".zero_probe", at + ".uniform_weights", at},
              "a probe of zeros begins as softmax attention, which uniform_weights leaves out; set one of them");
  if (!mixer.has_learned_gates()) return;
  const double clip = mixer.utility_clip;
  rules.check(clip < mixer.threshold && mixer.threshold < 1 - clip, {at + ".utility_clip", at + ".threshold", at},
              fmt::format("expected a threshold between {} and {}, got {}: all keys would be on one side of it",
                          format_real(clip), format_real(1 - clip), format_real(mixer.threshold)));
  constexpr double kOpenUtility = 0.9933071490757153;  // sigmoid(5): mixers/self_pruned.cpp
  rules.check(clip < 1 - kOpenUtility, {at + ".utility_clip", at},
              fmt::format("expected below 0.00669, got {}: fresh predictors say 0.9933, and a utility that is "
                          "held by the clip has no gradient, so they would never learn",
                          format_real(clip)));
}

void check_model(const ModelConfig& m, Rules& rules) {
  if (m.num_heads <= 0) return;  // reported; nothing below has a meaning
  const int64_t kv_heads = m.resolved_num_kv_heads(), head_dim = m.resolved_head_dim();
  rules.check(divides(kv_heads, m.num_heads), {"num_kv_heads", "num_heads"},
              fmt::format("expected a divisor of num_heads {}, got {}", m.num_heads, kv_heads));
  rules.check(m.head_dim > 0 || divides(m.num_heads, m.hidden_size), {"num_heads", "hidden_size"},
              fmt::format("expected a divisor of hidden_size {} (or set head_dim), got {}",
                          m.hidden_size, m.num_heads));
  rules.check(
      head_dim % 2 == 0, {"head_dim", "hidden_size", "num_heads"},
      fmt::format("expected an even number, got {}: rotary positions turn pairs", head_dim));
  rules.check(divides(static_cast<int64_t>(m.schedule.size()), m.num_layers),
              {"schedule", "num_layers"},
              fmt::format("expected a pattern whose length divides num_layers {}, got {} names",
                          m.num_layers, m.schedule.size()));
  std::vector<std::string> names;
  for (const auto& [name, mixer] : m.mixers) names.push_back(name);
  for (const std::string& name : m.schedule)
    rules.check(m.mixers.contains(name), {"schedule"},
                fmt::format("'{}' is not one of model.mixers{}", name, did_you_mean(name, names)));
  for (const auto& [name, mixer] : m.mixers) {
    check_mixer("mixers." + name, mixer, rules);
    std::set<int64_t> seen;
    for (const int64_t head : mixer.global_kv_heads)
      rules.check(head < kv_heads && seen.insert(head).second,
                  {"mixers." + name + ".global_kv_heads", "mixers." + name},
                  fmt::format("expected different heads from 0 to {}, got {}", kv_heads - 1, head));
  }
  const RopeScaling& rope = m.rope_scaling;
  if (rope.type == "longrope") {
    for (const auto& [key, factors] : {std::pair{"rope_scaling.short_factor", &rope.short_factor},
                                       {"rope_scaling.long_factor", &rope.long_factor}})
      rules.check(
          static_cast<int64_t>(factors->size()) == head_dim / 2, {key, "rope_scaling"},
          fmt::format("expected head_dim / 2 = {} numbers, got {}", head_dim / 2, factors->size()));
  }
  rules.check(rope.type != "llama3" || rope.high_freq_factor > rope.low_freq_factor,
              {"rope_scaling.high_freq_factor", "rope_scaling"},
              fmt::format("expected more than low_freq_factor {}, got {}", rope.low_freq_factor,
                          rope.high_freq_factor));
}

/// The sp_kv mixers that some layer uses, by name.
std::vector<std::string> self_pruned_mixers(const ModelConfig& model) {
  std::vector<std::string> names;
  for (const auto& [name, mixer] : model.mixers)
    if (mixer.has_learned_gates() &&
        std::find(model.schedule.begin(), model.schedule.end(), name) != model.schedule.end())
      names.push_back(name);
  return names;
}

/// A window that is longer than every sequence hides nothing.
bool window_is_idle(const MixerConfig& mixer, const Recipe& r) {
  return mixer.window > r.data.seq_tokens && !mixer.has_learned_gates();  // those have a rule of their own
}

void check_windows(const Recipe& r, Rules& rules) {
  for (const auto& [name, mixer] : r.model.mixers) {
    if (mixer.kind == "sliding_window") continue;  // a warning: a pretrained model may come with a longer one
    rules.check(!window_is_idle(mixer, r), {"model.mixers." + name + ".window", "data.seq_tokens", "model.mixers." + name},
                fmt::format("expected at most data.seq_tokens {} (or 0 for no window), got {}", r.data.seq_tokens,
                            mixer.window));
  }
}

void check_gates(const Recipe& r, Rules& rules) {
  const std::vector<std::string> names = self_pruned_mixers(r.model);
  const GateScheduleConfig& gates = r.schedule.gates;
  for (const std::string& name : names) {
    const int64_t window = r.model.mixers.at(name).window;
    rules.check(window < r.data.seq_tokens,
                {"model.mixers." + name + ".window", "data.seq_tokens", "model.mixers." + name},
                fmt::format("expected less than data.seq_tokens {}, got {}: the predictor learns "
                            "from keys outside the window alone",
                            r.data.seq_tokens, window));
  }
  const GateScheduleConfig unset;
  for (const auto& [key, changed] : {std::pair{"soft_steps", gates.soft_steps != unset.soft_steps},
                                     {"anneal_steps", gates.anneal_steps != unset.anneal_steps},
                                     {"kind", gates.kind != unset.kind},
                                     {"density_weight", gates.density_weight != unset.density_weight}})
    rules.check(!changed || !names.empty(), {std::string("schedule.gates.") + key},
                "phases of gates belong to sp_kv mixers, of which the model uses none");
  rules.check(gates.kind != "bernoulli" || gates.anneal_steps == 0,
              {"schedule.gates.anneal_steps", "schedule.gates.kind"},
              fmt::format("expected 0 with bernoulli gates, which are hard already, got {}", gates.anneal_steps));
  for (const std::string& name : names)
    rules.check(gates.kind != "bernoulli" || !r.model.mixers.at(name).weighted,
                {"model.mixers." + name + ".weighted", "schedule.gates.kind"},
                "expected false with bernoulli gates: a key that is drawn counts fully");
  const int64_t steps = r.schedule.steps;
  if (names.empty() || steps <= 0 || gates.soft_steps < 0 || gates.anneal_steps < 0) return;
  const int64_t soft = gates.resolved_soft_steps(steps);
  rules.check(soft <= steps, {"schedule.gates.soft_steps", "schedule.steps"},
              fmt::format("expected at most schedule.steps {}, got {}", steps, soft));
  rules.check(soft > steps || gates.resolved_anneal_steps(steps) <= steps - soft,
              {"schedule.gates.anneal_steps", "schedule.gates.soft_steps", "schedule.steps"},
              fmt::format("expected at most the {} steps after the {} soft ones of schedule.steps "
                          "{}, got {}",
                          steps - soft, soft, steps, gates.anneal_steps));
}

/// Rules between the settings of a task, each of which keeps its own.
void check_task(const TaskConfig& given, Rules& rules) {
  for (const std::string& name : given.foreign_settings())
    rules.check(false, {name, "kind"},
                fmt::format("does not belong to the task {}; remove it", given.kind));
  const TaskConfig t = given.resolved();
  if (t.kind == "mqar") {
    rules.check(*t.pairs <= *t.vocab / 2, {"pairs", "vocab", "kind"},
                fmt::format("expected at most the {} keys that half of vocab {} makes, got {}",
                            *t.vocab / 2, *t.vocab, *t.pairs));
    rules.check(*t.length % 2 == 0 && *t.length / 4 >= *t.pairs, {"length", "pairs", "kind"},
                fmt::format("expected an even number of at least 4 tokens for each of {} pairs, got "
                            "{}",
                            *t.pairs, *t.length));
  } else if (t.kind == "needle") {
    rules.check(*t.pairs <= *t.vocab, {"pairs", "vocab", "kind"},
                fmt::format("expected at most as many needles as vocab {} has keys, got {}",
                            *t.vocab, *t.pairs));
    const int64_t needed = (*t.pairs + 1) * (2 + *t.value_tokens) + 1;
    rules.check(*t.length >= needed, {"length", "pairs", "value_tokens", "kind"},
                fmt::format("expected at least {} tokens for {} needles, the question, its answer "
                            "and some hay, got {}",
                            needed, *t.pairs, *t.length));
  } else if (t.kind == "selective_copy") {
    const int64_t needed = 2 * *t.items + 1;
    rules.check(*t.length >= needed, {"length", "items", "kind"},
                fmt::format("expected at least {} tokens for {} items, the mark and their copies, "
                            "got {}",
                            needed, *t.items, *t.length));
  }
}

void check_data(const DataConfig& data, Rules& rules) {
  bool any_task = false;
  const bool integers = data.tokenizer.starts_with("integers:");
  // That of a tokenizer.json is known once it is opened.
  std::optional<int64_t> vocab = integers_vocab(data.tokenizer);
  if (data.tokenizer == "bytes") vocab = 257;
  rules.check(!integers || vocab, {"tokenizer", "train"},
              fmt::format("expected integers:N with N from 2 to {}, got '{}'", int64_t{1} << 30,
                          data.tokenizer));
  for (size_t i = 0; i < data.train.size(); ++i) {
    const DataSource& source = data.train[i];
    const std::string key = fmt::format("train.{}", i);
    rules.check(source.path.empty() == source.task.has_value(), {key, "train"},
                source.task ? "has a path and a task; expected one of them"
                            : "expected a path of token shards or a task, got neither");
    if (!source.task) continue;
    any_task = true;
    Rules fields(""), task_rules(key + ".task.");
    fields.check_fields(*source.task);
    if (!fields.problems.empty()) continue;  // reported; nothing below has a meaning
    check_task(*source.task, task_rules);
    const bool good = task_rules.problems.empty();
    for (RecipeProblem& problem : task_rules.problems) rules.add(std::move(problem));
    if (!good) continue;
    const TaskShape shape = source.task->shape();
    rules.check(shape.tokens <= data.seq_tokens, {"seq_tokens", key + ".task", "train"},
                fmt::format("expected at least the {} tokens of an example of {}, got {}; raise it "
                            "or make the task smaller",
                            shape.tokens, source.task->kind, data.seq_tokens));
    rules.check(!vocab || shape.symbols < *vocab, {"tokenizer", key + ".task", "train"},
                fmt::format("expected integers:{} or more for the {} symbols of {} and the end of a "
                            "document, got {}",
                            shape.symbols + 1, shape.symbols, source.task->kind, data.tokenizer));
  }
  rules.check(data.valid_examples == 0 || any_task, {"valid_examples", "train"},
              "expected 0, as data.train has no task");
}

}  // namespace

std::vector<std::string> recipe_warnings(const Recipe& r) {
  constexpr int64_t kMuchLonger = 8;
  std::vector<std::string> warnings;
  for (const auto& [name, mixer] : r.model.mixers)
    if (window_is_idle(mixer, r))
      warnings.push_back(fmt::format("model.mixers.{}.window: {} tokens are more than data.seq_tokens {}: as trained "
                                     "here it hides nothing",
                                     name, mixer.window, r.data.seq_tokens));
  for (const std::string& name : self_pruned_mixers(r.model)) {
    const int64_t window = r.model.mixers.at(name).window;
    if (window > r.data.seq_tokens / kMuchLonger)
      warnings.push_back(fmt::format(
          "model.mixers.{}.window: {} tokens are much of data.seq_tokens {}; below {} the gates "
          "see little to prune and learn little",
          name, window, r.data.seq_tokens, kMuchLonger * window));
  }
  return warnings;
}

std::vector<RecipeProblem> validate_task_config(const TaskConfig& task) {
  Rules rules("");
  rules.check_fields(task);
  if (rules.problems.empty()) check_task(task, rules);
  return rules.problems;
}

std::vector<RecipeProblem> validate_model_config(const ModelConfig& model) {
  Rules rules("");
  rules.check_fields(model);
  check_model(model, rules);
  return rules.problems;
}

std::vector<RecipeProblem> validate_recipe(const Recipe& r) {
  Rules model_rules("model."), data_rules("data."), rules("");
  rules.check_fields(r);
  check_model(r.model, model_rules);
  check_data(r.data, data_rules);
  for (RecipeProblem& problem : model_rules.problems) rules.add(std::move(problem));
  for (RecipeProblem& problem : data_rules.problems) rules.add(std::move(problem));
  rules.check(r.data.seq_tokens <= r.model.max_position, {"data.seq_tokens", "model.max_position"},
              fmt::format("expected at most model.max_position {}, got {}", r.model.max_position,
                          r.data.seq_tokens));
  rules.check(!r.init.path.empty() || (r.init.fresh.empty() && r.init.ignore.empty()),
              {r.init.fresh.empty() ? "init.ignore" : "init.fresh", "init.path"},
              "belongs to init.path, which is not set: all weights are drawn");
  const ScheduleConfig& s = r.schedule;
  rules.check(divides(r.data.seq_tokens, s.batch_tokens),
              {"schedule.batch_tokens", "data.seq_tokens"},
              fmt::format("expected a multiple of data.seq_tokens {}, got {}", r.data.seq_tokens,
                          s.batch_tokens));
  const int64_t micro = r.precision.micro_batch_tokens;
  rules.check(micro == 0 || (divides(r.data.seq_tokens, micro) && divides(micro, s.batch_tokens)),
              {"precision.micro_batch_tokens", "schedule.batch_tokens"},
              fmt::format("expected a multiple of data.seq_tokens {} that divides "
                          "schedule.batch_tokens {}, got {}",
                          r.data.seq_tokens, s.batch_tokens, micro));
  rules.check(s.warmup_steps <= s.steps, {"schedule.warmup_steps", "schedule.steps"},
              fmt::format("expected at most schedule.steps {}, got {}", s.steps, s.warmup_steps));
  rules.check(s.kind != "wsd" ||
                  s.decay_steps <= s.steps - std::clamp<int64_t>(s.warmup_steps, 0,
                                                                 std::max<int64_t>(s.steps, 0)),
              {"schedule.decay_steps", "schedule.steps"},
              fmt::format("warmup_steps {} and decay_steps {} exceed steps {}", s.warmup_steps,
                          s.decay_steps, s.steps));
  rules.check(s.kind != "wsd" || s.decay_steps > 0, {"schedule.decay_steps", "schedule.kind"},
              "wsd needs decay_steps of at least 1");
  rules.check(s.kind == "wsd" || s.decay_steps == 0, {"schedule.decay_steps", "schedule.kind"},
              fmt::format("belongs to kind wsd, not to {}", s.kind));
  rules.check(s.kind == "wsd" || s.weight_decay_power == 0,
              {"schedule.weight_decay_power", "schedule.kind"},
              fmt::format("belongs to kind wsd, not to {}", s.kind));
  check_windows(r, rules);
  check_gates(r, rules);
  const int64_t context = r.parallel.context;
  const int64_t heads = r.model.num_heads, kv_heads = r.model.resolved_num_kv_heads();
  for (const auto& [name, mixer] : r.model.mixers)
    rules.check(mixer.context != "heads" || (divides(context, heads) && divides(context, kv_heads)),
                {fmt::format("model.mixers.{}.context", name), "parallel.context"},
                fmt::format("heads are traded among the processes of a sequence: expected num_heads {} "
                            "and num_kv_heads {} to be multiples of parallel.context {}; set "
                            "parallel.context to a divisor of {}, or context to gather",
                            heads, kv_heads, context, std::gcd(heads, kv_heads)));
  rules.check(r.eval.every_steps == 0 || r.data.has_valid(), {"eval.every_steps", "data.valid"},
              "evaluation needs data.valid, or data.valid_examples of a task");
  rules.check(r.eval.sample_tokens < r.model.max_position,
              {"eval.sample_tokens", "model.max_position"},
              fmt::format("expected less than model.max_position {}, got {}", r.model.max_position,
                          r.eval.sample_tokens));
  return rules.problems;
}

}  // namespace lh
