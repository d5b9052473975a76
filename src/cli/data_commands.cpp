// longhand data prepare, inspect, task, train-tokenizer.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "base/timer.h"
#include "cli/commands.h"
#include "cli/progress.h"
#include "config/load.h"
#include "data/find_files.h"
#include "data/inspect.h"
#include "data/prepare.h"
#include "data/task_sequences.h"
#include "data/text_input.h"
#include "runtime/cpu_info.h"
#include "tokenizer/bpe_trainer.h"
#include "train/run_state.h"
#include "train/signals.h"

namespace lh {
namespace {

/// \n, \t and \\ as one would type them in a shell.
std::string unescape(const std::string& text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\' || i + 1 == text.size()) {
      result += text[i];
      continue;
    }
    const char next = text[++i];
    if (next == 'n') result += '\n';
    else if (next == 't') result += '\t';
    else if (next == '\\') result += '\\';
    else result += std::string{'\\', next};
  }
  return result;
}

int stopped() {
  log_warn("stopped; nothing was written");
  return 128 + stop_signal();
}

}  // namespace

int data_prepare_command(const PrepareArguments& arguments) {
  install_stop_signals();
  const auto tokenizer = make_tokenizer(arguments.tokenizer);
  PrepareOptions options;
  options.inputs = arguments.inputs;
  options.train_path = arguments.output;
  options.valid_path = arguments.valid_output;
  options.valid_fraction = arguments.valid_fraction;
  options.valid_last_bytes = arguments.valid_last_bytes;
  options.jsonl_field = arguments.field;
  options.skip_bad_lines = arguments.skip_bad_lines;
  options.split = arguments.split == "blank-lines" ? DocumentSplit::kBlankLines
                  : arguments.split == "separator" ? DocumentSplit::kSeparator
                                                   : DocumentSplit::kFile;
  options.blank_lines = arguments.blank_lines;
  options.separator = unescape(arguments.separator);
  options.threads = static_cast<int>(arguments.threads);

  ProgressLine progress;
  const auto result = prepare(
      options, *tokenizer,
      [&](const PrepareProgress& p) {
        const double share = p.bytes_total > 0 ? static_cast<double>(p.bytes_done) /
                                                     static_cast<double>(p.bytes_total)
                                               : -1;
        progress.update(share, fmt::format("{} tokens in {} documents{}",
                                           format_count(static_cast<double>(p.tokens)),
                                           format_count(static_cast<double>(p.documents)),
                                           p.seconds_left ? ", left " + format_duration(
                                                                            *p.seconds_left)
                                                          : ""));
      },
      &stop_requested());
  progress.clear();
  if (!result) return stopped();
  const auto describe = [](const std::string& path, const ShardInfo& info) {
    fmt::print("{}: {} documents, {} tokens, {} of text\n", path, info.documents, info.tokens,
               format_bytes(static_cast<double>(info.text_bytes)));
  };
  describe(arguments.output, result->train);
  if (result->valid) describe(arguments.valid_output, *result->valid);
  if (result->empty_documents > 0)
    fmt::print("{} empty documents dropped\n", result->empty_documents);
  if (result->bad_lines > 0) fmt::print("{} bad lines skipped\n", result->bad_lines);
  fmt::print("prepared in {}\n", format_duration(result->seconds));
  return 0;
}

int data_inspect_command(const std::string& shard, int64_t samples, bool verify) {
  const auto open = TokenShard::open(shard);
  InspectOptions options;
  options.samples = samples;
  options.verify = verify;
  fmt::print("{}", format_report(*open, inspect_shard(*open, options)));
  if (verify) fmt::print("every token was read and the digest agrees\n");
  return 0;
}

int data_task_command(const TaskArguments& arguments) {
  const std::vector<std::string> kinds = task_kinds();
  if (std::find(kinds.begin(), kinds.end(), arguments.kind) == kinds.end())
    fail<ConfigError>("unknown task '{}'{}; expected one of {}", arguments.kind,
                      did_you_mean(arguments.kind, kinds), fmt::join(kinds, ", "));
  const Task task(
      parse_task_config_text("kind: " + arguments.kind, arguments.kind, arguments.sets));
  const TaskShape& shape = task.shape();
  fmt::print("{}\n{} tokens, of which {} are answers; data.tokenizer: integers:{}\n",
             task.config().str(), shape.tokens, shape.answers, shape.symbols + 1);
  for (int64_t i = 0; i < arguments.samples; ++i)
    fmt::print("\n{}\n",
               format_example(task.example(static_cast<uint64_t>(arguments.seed),
                                           TaskSequences::training_stream(0), i)));
  return 0;
}

int train_tokenizer_command(const TrainTokenizerArguments& arguments) {
  install_stop_signals();
  const Timer timer;
  BpeTrainOptions options;
  options.vocab_size = arguments.vocab_size;
  options.pattern = arguments.pattern;
  options.threads = static_cast<int>(arguments.threads > 0 ? arguments.threads
                                                           : cpu_info().logical_cores);
  BpeTrainer trainer(options);
  const auto files = find_files(arguments.inputs);
  const int64_t total = disk_bytes(files);
  int64_t earlier = 0, text_bytes = 0;
  ProgressLine progress;
  // Texts are fed in pieces that end at a line, so that a large file needs little memory.
  constexpr size_t kPiece = 4 << 20;
  std::vector<char> buffer(kPiece);
  for (const auto& file : files) {
    TextInput input(file);
    std::string held;
    while (const size_t got = input.read(buffer)) {
      if (stop_signal() != 0) return stopped();
      held.append(buffer.data(), got);
      text_bytes += static_cast<int64_t>(got);
      const size_t end = held.rfind('\n');
      if (end == std::string::npos && held.size() < 4 * kPiece) continue;
      const size_t piece = end == std::string::npos ? held.size() : end + 1;
      trainer.add_text(std::string_view(held).substr(0, piece));
      held.erase(0, piece);
      if (total > 0)
        progress.update(static_cast<double>(earlier + input.disk_position()) /
                            static_cast<double>(total),
                        "reading");
    }
    if (!held.empty()) trainer.add_text(held);
    earlier += input.disk_position();
  }
  const auto tokenizer = trainer.train([&](int64_t done, int64_t wanted) {
    progress.update(static_cast<double>(done) / static_cast<double>(wanted), "learning merges");
  });
  progress.clear();
  write_file_atomically(arguments.output, tokenizer->save_json());
  fmt::print("{}: {} tokens from {} of text in {}\n", arguments.output, tokenizer->vocab_size(),
             format_bytes(static_cast<double>(text_bytes)), format_duration(timer.seconds()));
  if (tokenizer->vocab_size() < arguments.vocab_size)
    log_warn("the text has no more pairs that occur twice: {} tokens instead of {}",
             tokenizer->vocab_size(), arguments.vocab_size);
  return 0;
}

}  // namespace lh
