#include "config/validate.h"

#include <fmt/format.h>

#include "base/text.h"

namespace lh {
namespace {

/// Collects broken rules under a key prefix.
class Rules {
 public:
  explicit Rules(std::string prefix) : prefix_(std::move(prefix)) {}

  void check(bool holds, std::initializer_list<const char*> keys, std::string message) {
    if (holds) return;
    RecipeProblem problem;
    for (const char* key : keys) problem.keys.push_back(prefix_ + key);
    problem.message = std::move(message);
    problems.push_back(std::move(problem));
  }
  std::vector<RecipeProblem> problems;

 private:
  std::string prefix_;
};

std::vector<RecipeProblem> model_problems(const ModelConfig& m, const std::string& prefix) {
  Rules rules(prefix);
  for (const auto& [key, value] :
       {std::pair{"hidden_size", m.hidden_size}, {"intermediate_size", m.intermediate_size},
        {"num_layers", m.num_layers}, {"num_heads", m.num_heads}})
    rules.check(value > 0, {key}, "is required: expected a positive integer");
  if (!rules.problems.empty()) return rules.problems;

  const int64_t kv_heads = m.resolved_num_kv_heads(), head_dim = m.resolved_head_dim();
  rules.check(m.num_heads % kv_heads == 0, {"num_kv_heads", "num_heads"},
              fmt::format("expected a divisor of num_heads {}, got {}", m.num_heads, kv_heads));
  rules.check(m.head_dim > 0 || m.hidden_size % m.num_heads == 0, {"num_heads", "hidden_size"},
              fmt::format("expected a divisor of hidden_size {} (or set head_dim), got {}",
                          m.hidden_size, m.num_heads));
  rules.check(head_dim % 2 == 0, {"head_dim", "hidden_size", "num_heads"},
              fmt::format("expected an even number, got {}: rotary positions turn pairs", head_dim));
  rules.check(m.num_layers % static_cast<int64_t>(m.schedule.size()) == 0,
              {"schedule", "num_layers"},
              fmt::format("expected a pattern whose length divides num_layers {}, got {} names",
                          m.num_layers, m.schedule.size()));
  std::vector<std::string> names;
  for (const auto& [name, mixer] : m.mixers) names.push_back(name);
  for (const std::string& name : m.schedule)
    rules.check(m.mixers.contains(name), {"schedule"},
                fmt::format("'{}' is not one of model.mixers{}", name, did_you_mean(name, names)));
  for (const auto& [name, mixer] : m.mixers) {
    const std::string key = "mixers." + name + ".window", parent = "mixers." + name;
    const bool windowed = mixer.kind == "sliding_window";
    rules.check(!windowed || mixer.window > 0, {key.c_str(), parent.c_str()},
                "a sliding_window mixer needs a window of at least 1 token");
    rules.check(windowed || (mixer.window == 0 && mixer.sinks == 0), {key.c_str(), parent.c_str()},
                fmt::format("window and sinks belong to sliding_window, not to {}", mixer.kind));
  }
  const RopeScaling& rope = m.rope_scaling;
  if (rope.type == "longrope") {
    for (const auto& [key, factors] : {std::pair{"rope_scaling.short_factor", &rope.short_factor},
                                       {"rope_scaling.long_factor", &rope.long_factor}})
      rules.check(static_cast<int64_t>(factors->size()) == head_dim / 2, {key, "rope_scaling"},
                  fmt::format("expected head_dim / 2 = {} numbers, got {}", head_dim / 2,
                              factors->size()));
  }
  rules.check(rope.type != "llama3" || rope.high_freq_factor > rope.low_freq_factor,
              {"rope_scaling.high_freq_factor", "rope_scaling"},
              fmt::format("expected more than low_freq_factor {}, got {}", rope.low_freq_factor,
                          rope.high_freq_factor));
  return rules.problems;
}

}  // namespace

std::vector<RecipeProblem> validate_model_config(const ModelConfig& model) {
  return model_problems(model, "");
}

std::vector<RecipeProblem> validate_recipe(const Recipe& r) {
  Rules rules("");
  rules.problems = model_problems(r.model, "model.");
  rules.check(!r.data.train.empty(), {"data.train", "data"},
              "is required: expected at least one source of token shards");
  double weight = 0;
  for (const DataSource& source : r.data.train) weight += source.weight;
  rules.check(r.data.train.empty() || weight > 0, {"data.train"},
              "expected weights with a positive sum");
  rules.check(r.data.seq_tokens <= r.model.max_position, {"data.seq_tokens", "model.max_position"},
              fmt::format("expected at most model.max_position {}, got {}", r.model.max_position,
                          r.data.seq_tokens));
  const ScheduleConfig& s = r.schedule;
  rules.check(s.steps > 0, {"schedule.steps", "schedule"},
              "is required: expected a positive integer");
  rules.check(s.batch_tokens > 0, {"schedule.batch_tokens", "schedule"},
              "is required: expected a positive integer");
  rules.check(s.batch_tokens % r.data.seq_tokens == 0, {"schedule.batch_tokens", "data.seq_tokens"},
              fmt::format("expected a multiple of data.seq_tokens {}, got {}", r.data.seq_tokens,
                          s.batch_tokens));
  const int64_t micro = r.precision.micro_batch_tokens;
  rules.check(micro == 0 || (micro % r.data.seq_tokens == 0 && s.batch_tokens % micro == 0),
              {"precision.micro_batch_tokens", "schedule.batch_tokens"},
              fmt::format("expected a multiple of data.seq_tokens {} that divides "
                          "schedule.batch_tokens {}, got {}",
                          r.data.seq_tokens, s.batch_tokens, micro));
  rules.check(s.warmup_steps <= s.steps, {"schedule.warmup_steps", "schedule.steps"},
              fmt::format("expected at most schedule.steps {}, got {}", s.steps, s.warmup_steps));
  rules.check(s.kind != "wsd" || s.warmup_steps + s.decay_steps <= s.steps,
              {"schedule.decay_steps", "schedule.steps"},
              fmt::format("warmup_steps {} and decay_steps {} exceed steps {}", s.warmup_steps,
                          s.decay_steps, s.steps));
  rules.check(s.kind != "wsd" || s.decay_steps > 0, {"schedule.decay_steps", "schedule.kind"},
              "wsd needs decay_steps of at least 1");
  rules.check(s.kind == "wsd" || s.decay_steps == 0, {"schedule.decay_steps", "schedule.kind"},
              fmt::format("belongs to kind wsd, not to {}", s.kind));
  for (const auto& [key, value] :
       {std::pair{"parallel.data", r.parallel.data}, {"parallel.context", r.parallel.context}})
    rules.check(value == 1, {key},
                fmt::format("expected 1, got {}: this version trains in one process", value));
  rules.check(r.eval.every_steps == 0 || !r.data.valid.empty(), {"eval.every_steps", "data.valid"},
              "evaluation needs data.valid");
  rules.check(r.eval.sample_tokens < r.model.max_position,
              {"eval.sample_tokens", "model.max_position"},
              fmt::format("expected less than model.max_position {}, got {}", r.model.max_position,
                          r.eval.sample_tokens));
  return rules.problems;
}

}  // namespace lh
