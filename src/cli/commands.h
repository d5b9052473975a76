// One function per subcommand; each returns an exit code or throws.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace lh {

/// Where a tokenizer's file is not there to ask: GPT-2's, rounded up to a multiple of 64.
inline constexpr int64_t kDefaultVocabulary = 50304;

struct TrainArguments {
  std::string recipe;
  std::vector<std::string> sets;
  bool resume = false;
  std::string replay;  // a bundle; recipe is then unused
};
struct ParityArguments {
  std::string recipe;
  std::vector<std::string> sets;
  std::vector<int> contexts{1, 2, 4};
  int64_t steps = 2;
  double tolerance = 1e-8;
};
int parity_command(const ParityArguments& arguments);
int train_command(const TrainArguments& arguments);

struct EvalArguments {
  std::string checkpoint;  // a checkpoint folder, or a run folder (its newest checkpoint)
  std::vector<std::string> data;  // shards; empty: what the checkpoint's recipe evaluates on
  int64_t tokens = 0;
  int64_t threads = 0;
  std::optional<double> kv_threshold;  // of sp_kv mixers, in place of their own
  bool soft_gates = false;
  std::string gate_control;  // "", shuffled, random or constant
};
int eval_command(const EvalArguments& arguments);

struct HybridArguments {
  std::string checkpoint, out;
  std::vector<std::string> data;
  int64_t global_heads = 0;
  int64_t tokens = 0, threads = 0;
};
int recipe_hybrid_command(const HybridArguments& arguments);

struct GenerateArguments {
  std::string checkpoint;
  std::string prompt;
  int64_t tokens = 128;
  double temperature = 0.8;
  int64_t top_k = 0;
  double top_p = 0.95;
  uint64_t seed = 1;
  int64_t threads = 0;
  bool ignore_end = false;  // go on after an end-of-text token
};
int generate_command(const GenerateArguments& arguments);

struct PrepareArguments {
  std::vector<std::string> inputs;
  std::string output;
  std::string valid_output;
  double valid_fraction = 0;
  int64_t valid_last_bytes = 0;
  std::string tokenizer = "bytes";
  std::string field = "text";
  std::string split = "file";  // file | blank-lines | separator
  int64_t blank_lines = 1;
  std::string separator;
  bool skip_bad_lines = false;
  int64_t threads = 0;
};
int data_prepare_command(const PrepareArguments& arguments);

int data_inspect_command(const std::string& shard, int64_t samples, bool verify);

struct TaskArguments {
  std::string kind;
  std::vector<std::string> sets;  // settings of the task: "pairs=4"
  int64_t samples = 3;
  int64_t seed = 1;
};
int data_task_command(const TaskArguments& arguments);

struct TrainTokenizerArguments {
  std::vector<std::string> inputs;
  std::string output;
  int64_t vocab_size = 8192;
  std::string pattern = "gpt2";
  int64_t threads = 0;
};
int train_tokenizer_command(const TrainTokenizerArguments& arguments);

struct BenchArguments {
  std::vector<std::string> groups;  // empty: all
  std::string device = "auto";      // auto | cpu | cuda
  std::string size = "auto";        // auto | toy | small | full
  std::string json;
  std::vector<std::string> recipes;  // of the group step; empty: those of the size
  std::vector<std::string> sets;
  int64_t threads = 0;
};
int bench_command(const BenchArguments& arguments);

int recipe_explain_command(const std::string& key);
struct PlanArguments {
  std::string recipe;
  std::vector<std::string> sets;
  int64_t world = 1, rank = 0;
  std::optional<int64_t> vocabulary;  // where the recipe leaves it to a tokenizer
  std::string device = "auto";  // auto | cpu | cuda
  std::string compute = "auto";
  double peak_tflops = 989, link_gigabytes = 50;  // of one process: a Hopper GPU, 400 Gb/s
  double efficiency = 0.4;                        // share of the peak that a step reaches
};
int recipe_plan_command(const PlanArguments& arguments);
int recipe_check_command(const std::string& recipe, const std::vector<std::string>& sets,
                         bool dump);
int doctor_command();

}  // namespace lh
