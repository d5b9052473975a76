#include "train/training_data.h"

#include "train/saved_run.h"

namespace lh {
namespace {

/// The task, if the vocabulary has room for its symbols beside the end of a document.
Task open_task(const TaskConfig& config, const Recipe& recipe, const Tokenizer& tokenizer) {
  Task task(config);
  if (task.shape().symbols >= tokenizer.vocab_size())
    fail<ConfigError>(
        "data.tokenizer: the task {} needs {} symbols and the end of a document, but the tokenizer "
        "'{}' has {} tokens; use integers:{} or a smaller task",
        config.kind, task.shape().symbols, recipe.data.tokenizer, tokenizer.vocab_size(),
        task.shape().symbols + 1);
  return task;
}

}  // namespace

TrainingBatches open_training_data(const Recipe& recipe, const Tokenizer& tokenizer) {
  std::vector<TrainingBatches::Source> sources;
  for (const DataSource& source : recipe.data.train) {
    if (source.task) {
      sources.push_back({{}, source.weight, open_task(*source.task, recipe, tokenizer)});
      continue;
    }
    const std::vector<std::string> patterns = {source.path};
    sources.push_back({open_shards(patterns), source.weight});
    for (const auto& shard : sources.back().shards) check_tokenizer(*shard, tokenizer);
  }
  return TrainingBatches(std::move(sources),
                         {.seq_tokens = recipe.data.seq_tokens,
                          .sequences_per_step =
                              recipe.schedule.batch_tokens / recipe.data.seq_tokens,
                          .seed = static_cast<uint64_t>(recipe.run.seed),
                          .shuffle = recipe.data.shuffle,
                          .end_of_text = tokenizer.end_of_text().value_or(-1)});
}

ValidData open_valid_data(const Recipe& recipe, const Tokenizer& tokenizer) {
  ValidData data;
  if (!recipe.data.valid.empty()) {
    auto shards = open_shards(recipe.data.valid);
    for (const auto& shard : shards) check_tokenizer(*shard, tokenizer);
    data.text.emplace(std::move(shards), recipe.data.seq_tokens, recipe.eval.tokens);
  }
  for (size_t i = 0; i < recipe.data.train.size() && recipe.data.valid_examples > 0; ++i) {
    const auto& task = recipe.data.train[i].task;
    if (!task) continue;
    data.tasks.emplace_back(open_task(*task, recipe, tokenizer),
                            TaskSequences::Options{
                                recipe.data.seq_tokens, static_cast<uint64_t>(recipe.run.seed),
                                TaskSequences::validation_stream(static_cast<int64_t>(i)),
                                tokenizer.end_of_text().value_or(-1)},
                            recipe.data.valid_examples);
  }
  return data;
}

}  // namespace lh
