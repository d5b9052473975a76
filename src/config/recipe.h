// A recipe: one complete training run, typed. The structs below are the schema; config/load.h
// reads and prints them. Numbers carry their unit in the name (tokens, steps).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/field.h"
#include "config/model_config.h"
#include "config/task_config.h"

namespace lh {

struct RunConfig {
  std::string name = "unnamed";
  int64_t seed = 1;
  std::string device = "auto";  // auto | cpu | cuda
  int64_t threads = 0;          // 0: all cores
  std::string out_dir;          // "": runs/<name>

  bool operator==(const RunConfig&) const = default;
  template <typename Visitor, typename Self>
  static void visit(Visitor& v, Self& self);
};

/// Weights to start from instead of random ones.
struct InitConfig {
  std::string path;                 // "": all weights are drawn from run.seed
  std::vector<std::string> fresh;   // globs on names of the model: drawn all the same
  std::vector<std::string> ignore;  // globs on names in path that the model need not have

  bool operator==(const InitConfig&) const = default;
  template <typename Visitor, typename Self>
  static void visit(Visitor& v, Self& self);
};

/// One source of the training mixture: a path or a task.
struct DataSource {
  std::string path;                // a token shard, or a glob of shards
  std::optional<TaskConfig> task;  // or examples made as they are needed
  double weight = 1;               // share of tokens, relative to the other sources

  bool operator==(const DataSource&) const = default;
  template <typename Visitor, typename Self>
  static void visit(Visitor& v, Self& self);
};

struct DataConfig {
  std::vector<DataSource> train;
  std::vector<std::string> valid;   // shards or globs
  int64_t valid_examples = 0;       // of each task in train
  std::string tokenizer = "bytes";  // "bytes", "integers:N" or the path of a tokenizer.json
  int64_t seq_tokens = 1024;
  bool shuffle = true;
  int64_t prefetch_batches = 4;

  /// Whether there is anything to evaluate on.
  bool has_valid() const { return !valid.empty() || valid_examples > 0; }

  bool operator==(const DataConfig&) const = default;
  template <typename Visitor, typename Self>
  static void visit(Visitor& v, Self& self);
};

/// Muon for hidden matrices. Its momentum is M = mu M + (1 - mu) G; the form without (1 - mu)
/// differs only by a factor that the orthogonalisation removes, so it is no option.
struct MuonConfig {
  double learning_rate = 0;  // 0: optim.learning_rate
  double momentum = 0.95;
  bool nesterov = true;
  std::string newton_schulz = "keller";  // keller | tilde
  int64_t newton_schulz_steps = 0;       // 0: the variant's own, 5 or 12
  std::string scaling = "moonlight";     // keller | moonlight

  /// newton_schulz_steps with 0 replaced by the variant's own number.
  int64_t resolved_steps() const;

  bool operator==(const MuonConfig&) const = default;
  template <typename Visitor, typename Self>
  static void visit(Visitor& v, Self& self);
};

/// Settings for the parameters whose name matches; the last matching group wins, key by key.
struct ParamGroupConfig {
  std::string pattern;  // glob on the parameter's full name: * and ?
  std::optional<double> lr_multiplier;
  std::optional<double> weight_decay;
  std::optional<bool> freeze;

  bool operator==(const ParamGroupConfig&) const = default;
  template <typename Visitor, typename Self>
  static void visit(Visitor& v, Self& self);
};

struct OptimConfig {
  std::string kind = "adamw";  // adamw | muon
  double learning_rate = 3e-4;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;
  double clip_norm = 1;  // 0: no clipping
  MuonConfig muon;
  std::vector<ParamGroupConfig> groups;

  bool operator==(const OptimConfig&) const = default;
  template <typename Visitor, typename Self>
  static void visit(Visitor& v, Self& self);
};

/// Phases of the gates of sp_kv mixers: soft, then annealed to hard with the predictor frozen, then
/// hard (SP-KV, section 3).
struct GateScheduleConfig {
  int64_t soft_steps = 0;    // 0: three quarters of all steps
  int64_t anneal_steps = 0;  // 0: a fifth of the steps that are left, at most 500
  std::string kind = "soft";  // soft | bernoulli: the first phase
  double density_weight = 0;

  /// Whether a step needs the numbers of its rows.
  bool needs_row_numbers() const { return kind == "bernoulli" || density_weight != 0; }

  int64_t resolved_soft_steps(int64_t steps) const;
  int64_t resolved_anneal_steps(int64_t steps) const;

  bool operator==(const GateScheduleConfig&) const = default;
  template <typename Visitor, typename Self>
  static void visit(Visitor& v, Self& self);
};

struct ScheduleConfig {
  int64_t steps = 0;
  int64_t batch_tokens = 0;  // all accumulation steps and all processes together
  int64_t warmup_steps = 0;
  std::string kind = "cosine";         // constant | cosine | wsd
  int64_t decay_steps = 0;             // wsd only
  std::string decay_shape = "linear";  // linear | 1-sqrt | exponential, wsd only
  double final_lr_fraction = 0.1;
  double weight_decay_power = 0;  // wsd only
  GateScheduleConfig gates;

  bool operator==(const ScheduleConfig&) const = default;
  template <typename Visitor, typename Self>
  static void visit(Visitor& v, Self& self);
};

struct ParallelConfig {
  int64_t data = 0;
  int64_t context = 1;
  std::string layout = "zigzag";  // zigzag | contiguous
  int64_t zero = 1;
  bool overlap = true;

  bool operator==(const ParallelConfig&) const = default;
  template <typename Visitor, typename Self>
  static void visit(Visitor& v, Self& self);
};

struct PrecisionConfig {
  std::string compute = "auto";    // auto | fp32 | bf16
  std::string recompute = "none";  // none | block
  int64_t micro_batch_tokens = 0;  // 0: the whole batch at once
  std::string cuda_graphs = "auto";  // auto | off

  bool operator==(const PrecisionConfig&) const = default;
  template <typename Visitor, typename Self>
  static void visit(Visitor& v, Self& self);
};

struct CheckpointConfig {
  int64_t every_steps = 0;  // 0: only at the end and on SIGTERM/SIGINT
  int64_t keep_last = 2;
  bool keep_best = true;
  std::string folder = "checkpoints";

  bool operator==(const CheckpointConfig&) const = default;
  template <typename Visitor, typename Self>
  static void visit(Visitor& v, Self& self);
};

struct EvalConfig {
  int64_t every_steps = 0;  // 0: only at the end
  int64_t tokens = 0;       // 0: all of data.valid
  int64_t sample_every_steps = 0;
  std::string prompt;
  int64_t sample_tokens = 64;

  bool operator==(const EvalConfig&) const = default;
  template <typename Visitor, typename Self>
  static void visit(Visitor& v, Self& self);
};

struct LogConfig {
  int64_t every_steps = 1;
  std::string metrics_file = "metrics.jsonl";

  bool operator==(const LogConfig&) const = default;
  template <typename Visitor, typename Self>
  static void visit(Visitor& v, Self& self);
};

struct Recipe {
  RunConfig run;
  ModelConfig model;
  InitConfig init;
  DataConfig data;
  OptimConfig optim;
  ScheduleConfig schedule;
  ParallelConfig parallel;
  PrecisionConfig precision;
  CheckpointConfig checkpoint;
  EvalConfig eval;
  LogConfig log;

  /// run.out_dir, or runs/<name>.
  std::string run_folder() const;
  /// checkpoint.folder below run_folder() unless it is absolute.
  std::string checkpoint_folder() const;
  /// log.metrics_file below run_folder() unless it is absolute.
  std::string metrics_path() const;
  /// Tokens of one forward and backward; schedule.batch_tokens is a multiple of it.
  int64_t micro_batch_tokens() const;
  /// Micro batches per optimizer step.
  int64_t accumulation_steps() const;

  bool operator==(const Recipe&) const = default;
  template <typename Visitor, typename Self>
  static void visit(Visitor& v, Self& self);
};

/// N of the tokenizer name "integers:N", 2 to 2^30; nullopt for other names, "integers:" with anything
/// else behind it among them.
std::optional<int64_t> integers_vocab(std::string_view tokenizer);

template <typename Visitor, typename Self>
void RunConfig::visit(Visitor& v, Self& self) {
  v.field("name", self.name, Doc{"name of the run, in logs and in the default out_dir"},
          not_empty());
  v.field("seed", self.seed, Doc{"seed of weights, data order and samples"}, at_least(0));
  v.field("device", self.device, Doc{"where to compute; auto: cuda if usable, else cpu"},
          one_of({"auto", "cpu", "cuda"}));
  v.field("threads", self.threads, Doc{"CPU threads; 0: all cores", "threads"}, between(0, 4096));
  v.field("out_dir", self.out_dir,
          Doc{"folder for everything the run writes; empty: runs/<run.name>"}, Rule{});
}

template <typename Visitor, typename Self>
void InitConfig::visit(Visitor& v, Self& self) {
  v.field("path", self.path,
          Doc{"start from the weights of this run, checkpoint or Hugging Face folder, with a new "
              "optimizer; empty: draw all from run.seed. --resume goes on from the run's own "
              "checkpoint instead"},
          Rule{});
  v.field("fresh", self.fresh,
          Doc{"globs (* and ?) on names of parameters that are drawn all the same"}, Rule{});
  v.field("ignore", self.ignore,
          Doc{"globs on names of tensors in path that the model may lack"}, Rule{});
}

template <typename Visitor, typename Self>
void DataSource::visit(Visitor& v, Self& self) {
  v.field("path", self.path, Doc{"token shard (.h5) or glob of shards"}, Rule{});
  v.field("task", self.task, Doc{"or a synthetic task, whose examples never end"}, Rule{});
  v.field("weight", self.weight, Doc{"share of tokens, relative to the other sources"}, positive());
}

template <typename Visitor, typename Self>
void DataConfig::visit(Visitor& v, Self& self) {
  v.field("train", self.train, Doc{"sources of the training mixture"}, not_empty());
  v.field("valid", self.valid, Doc{"held-out token shards or globs"}, Rule{});
  v.field("valid_examples", self.valid_examples,
          Doc{"fresh examples of each task in train to evaluate on; 0: none", "examples"},
          between(0, 1e9));
  v.field("tokenizer", self.tokenizer,
          Doc{"path of a tokenizer.json; 'bytes'; or 'integers:N': ids 0 to N - 2 are decimal "
              "numbers, N - 1 ends a document"},
          not_empty());
  v.field("seq_tokens", self.seq_tokens,
          Doc{"length of a packed sequence; longer documents are cut", "tokens"}, positive());
  v.field("shuffle", self.shuffle,
          Doc{"visit documents in an order drawn from run.seed, new in each epoch"}, Rule{});
  v.field("prefetch_batches", self.prefetch_batches,
          Doc{"batches read ahead by a thread; 0: read in the step", "batches"}, between(0, 1024));
}

template <typename Visitor, typename Self>
void MuonConfig::visit(Visitor& v, Self& self) {
  v.field("learning_rate", self.learning_rate,
          Doc{"peak learning rate of Muon's matrices; 0: optim.learning_rate"}, at_least(0));
  v.field("momentum", self.momentum, Doc{"mu in M = mu M + (1 - mu) G"}, below(0, 1));
  v.field("nesterov", self.nesterov,
          Doc{"orthogonalise (1 - mu) G + mu M instead of the momentum M itself"}, Rule{});
  v.field("newton_schulz", self.newton_schulz,
          Doc{"iteration X = a X + (b A + c A^2) X with A = X X^T: keller is (3.4445, -4.7750, "
              "2.0315), rough in 5 steps; tilde is (2, -1.5, 0.5), to bf16 precision in 12"},
          one_of({"keller", "tilde"}));
  v.field("newton_schulz_steps", self.newton_schulz_steps,
          Doc{"iterations; 0: the variant's own (5 or 12)", "iterations"}, between(0, 64));
  v.field("scaling", self.scaling,
          Doc{"factor on the orthogonal update: keller is sqrt(max(1, rows / cols)); moonlight is "
              "0.2 sqrt(max(rows, cols)), the size of an AdamW update"},
          one_of({"keller", "moonlight"}));
}

template <typename Visitor, typename Self>
void ParamGroupConfig::visit(Visitor& v, Self& self) {
  v.field("pattern", self.pattern, Doc{"glob (* and ?) on the parameter's full name"}, not_empty());
  v.field("lr_multiplier", self.lr_multiplier, Doc{"times the learning rate; null: unchanged"},
          at_least(0));
  v.field("weight_decay", self.weight_decay, Doc{"replaces optim.weight_decay; null: unchanged"},
          at_least(0));
  v.field("freeze", self.freeze, Doc{"never update these parameters; null: unchanged"}, Rule{});
}

template <typename Visitor, typename Self>
void OptimConfig::visit(Visitor& v, Self& self) {
  v.field("kind", self.kind,
          Doc{"adamw for everything; muon: hidden matrices by Muon, the rest by AdamW"},
          one_of({"adamw", "muon"}));
  v.field("learning_rate", self.learning_rate, Doc{"peak learning rate of AdamW"}, positive());
  v.field("beta1", self.beta1, Doc{"AdamW: decay of the gradient's average"}, below(0, 1));
  v.field("beta2", self.beta2, Doc{"AdamW: decay of the squared gradient's average"}, below(0, 1));
  v.field("eps", self.eps, Doc{"AdamW: added to the root of the second moment"}, positive());
  v.field("weight_decay", self.weight_decay,
          Doc{"decoupled weight decay of matrices; norms and biases have none unless a group says "
              "so"},
          at_least(0));
  v.field("clip_norm", self.clip_norm,
          Doc{"largest global norm of the gradient, larger ones are scaled down; 0: no clipping"},
          at_least(0));
  v.field("muon", self.muon, Doc{"settings of Muon, used when kind is muon"}, Rule{});
  v.field("groups", self.groups,
          Doc{"exceptions by parameter name; the last group that matches wins, key by key"},
          Rule{});
}

template <typename Visitor, typename Self>
void ScheduleConfig::visit(Visitor& v, Self& self) {
  v.field("steps", self.steps, Doc{"optimizer steps of the whole run", "steps"}, positive());
  v.field("batch_tokens", self.batch_tokens,
          Doc{"tokens of one optimizer step, over all accumulation steps and processes", "tokens"},
          positive());
  v.field("warmup_steps", self.warmup_steps,
          Doc{"the learning rate rises linearly from 0 over these", "steps"}, at_least(0));
  v.field(
      "kind", self.kind,
      Doc{"after warmup: constant; cosine to final_lr_fraction; wsd holds the peak, then decays "
          "over the last decay_steps"},
      one_of({"constant", "cosine", "wsd"}));
  v.field("decay_steps", self.decay_steps, Doc{"wsd: length of the final decay", "steps"},
          at_least(0));
  v.field("decay_shape", self.decay_shape, Doc{"wsd: curve of the final decay"},
          one_of({"linear", "1-sqrt", "exponential"}));
  v.field("final_lr_fraction", self.final_lr_fraction,
          Doc{"cosine, wsd: learning rate at the last step, as a share of the peak"},
          between(0, 1));
  v.field("weight_decay_power", self.weight_decay_power,
          Doc{"wsd: over the final decay, weight decay is multiplied by (1 - t)^this, t from 0 to 1; "
              "0: it stays"},
          between(0, 100));
  v.field("gates", self.gates, Doc{"phases of the gates of sp_kv mixers"}, Rule{});
}

template <typename Visitor, typename Self>
void GateScheduleConfig::visit(Visitor& v, Self& self) {
  v.field("soft_steps", self.soft_steps,
          Doc{"soft gates, whose predictor learns, for this long; 0: three quarters of all steps",
              "steps"},
          at_least(0));
  v.field("anneal_steps", self.anneal_steps,
          Doc{"then soft gates become hard over these, the predictor frozen; 0: a fifth of the "
              "steps left, at most 500",
              "steps"},
          at_least(0));
  v.field("kind", self.kind,
          Doc{"gates of the first phase. soft: as open as the utility; bernoulli: drawn, open with that "
              "chance, with a straight-through gradient, and no annealing"},
          one_of({"soft", "bernoulli"}));
  v.field("density_weight", self.density_weight,
          Doc{"lambda of -lambda times the mean utility of all tokens, heads and layers, added to what the "
              "first phase minimises and logged beside the loss; above 0 keeps more keys, below 0 fewer"},
          Rule{});
}

template <typename Visitor, typename Self>
void ParallelConfig::visit(Visitor& v, Self& self) {
  v.field("data", self.data,
          Doc{"groups of processes that each take other sequences; 0: all processes / context",
              "groups"},
          at_least(0));
  v.field("context", self.context, Doc{"processes that share each sequence", "processes"},
          positive());
  v.field("layout", self.layout,
          Doc{"which tokens of a sequence a process holds. zigzag: one piece from the front and one "
              "from the back, equal work under causal attention; contiguous: one piece"},
          one_of({"zigzag", "contiguous"}));
  v.field("zero", self.zero,
          Doc{"stage of ZeRO. 1: each process holds the optimizer state, and the masters beside bf16 "
              "weights, of its share of the parameters, updates those and sends them to the others; 0: "
              "each holds and updates all. Results are the same"},
          between(0, 1));
  v.field("overlap", self.overlap,
          Doc{"sum gradients between processes while backward still runs. Results are the "
              "same"},
          Rule{});
}

template <typename Visitor, typename Self>
void PrecisionConfig::visit(Visitor& v, Self& self) {
  v.field("compute", self.compute,
          Doc{"type of activations and matrix products; weights and optimizer state stay fp32. "
              "auto: bf16 where the processor multiplies it natively, else fp32"},
          one_of({"auto", "fp32", "bf16"}));
  v.field("recompute", self.recompute,
          Doc{"block: keep only each block's input and run its forward again in backward, for less "
              "memory"},
          one_of({"none", "block"}));
  v.field("micro_batch_tokens", self.micro_batch_tokens,
          Doc{"tokens of one forward and backward; gradients add up over schedule.batch_tokens. "
              "0: the whole batch at once",
              "tokens"},
          at_least(0));
  v.field("cuda_graphs", self.cuda_graphs,
          Doc{"auto: a CUDA device runs a step as one recorded graph where all mixers allow it; off: "
              "kernel by kernel. Results are the same"},
          one_of({"auto", "off"}));
}

template <typename Visitor, typename Self>
void CheckpointConfig::visit(Visitor& v, Self& self) {
  v.field("every_steps", self.every_steps,
          Doc{"save this often; 0: only at the end and when told to stop", "steps"}, at_least(0));
  v.field("keep_last", self.keep_last, Doc{"newest checkpoints to keep", "checkpoints"},
          at_least(1));
  v.field("keep_best", self.keep_best,
          Doc{"also keep the checkpoint with the lowest validation loss"}, Rule{});
  v.field("folder", self.folder, Doc{"where, below run.out_dir unless absolute"}, not_empty());
}

template <typename Visitor, typename Self>
void EvalConfig::visit(Visitor& v, Self& self) {
  v.field("every_steps", self.every_steps,
          Doc{"evaluate on data.valid and data.valid_examples this often; 0: only at the end",
              "steps"}, at_least(0));
  v.field("tokens", self.tokens, Doc{"held-out tokens per evaluation; 0: all", "tokens"},
          at_least(0));
  v.field("sample_every_steps", self.sample_every_steps,
          Doc{"print a generated sample this often; 0: only at the end", "steps"}, at_least(0));
  v.field("prompt", self.prompt, Doc{"text the samples continue; empty: a document's start"},
          Rule{});
  v.field("sample_tokens", self.sample_tokens, Doc{"length of a sample; 0: no samples", "tokens"},
          at_least(0));
}

template <typename Visitor, typename Self>
void LogConfig::visit(Visitor& v, Self& self) {
  v.field("every_steps", self.every_steps, Doc{"one line of metrics per this many steps", "steps"},
          positive());
  v.field("metrics_file", self.metrics_file,
          Doc{"JSON lines of metrics, below run.out_dir unless absolute"}, not_empty());
}

template <typename Visitor, typename Self>
void Recipe::visit(Visitor& v, Self& self) {
  v.field("run", self.run, Doc{"identity of the run and the machine it uses"}, Rule{});
  v.field("model", self.model, Doc{"shape of the decoder"}, Rule{});
  v.field("init", self.init, Doc{"weights to start from"}, Rule{});
  v.field("data", self.data, Doc{"what it learns from"}, Rule{});
  v.field("optim", self.optim, Doc{"how gradients become updates"}, Rule{});
  v.field("schedule", self.schedule, Doc{"how long, in what batches, at what rate"}, Rule{});
  v.field("parallel", self.parallel, Doc{"how many processes share the work"}, Rule{});
  v.field("precision", self.precision, Doc{"number types and memory against time"}, Rule{});
  v.field("checkpoint", self.checkpoint, Doc{"what is saved, and when"}, Rule{});
  v.field("eval", self.eval, Doc{"held-out loss and samples"}, Rule{});
  v.field("log", self.log, Doc{"metrics while it runs"}, Rule{});
}

}  // namespace lh
