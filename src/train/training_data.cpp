#include "train/training_data.h"

#include "train/saved_run.h"

namespace lh {

TrainingBatches open_training_data(const Recipe& recipe, const Tokenizer& tokenizer) {
  std::vector<TrainingBatches::Source> sources;
  for (const DataSource& source : recipe.data.train) {
    const std::vector<std::string> patterns = {source.path};
    sources.push_back({open_shards(patterns), source.weight});
    for (const auto& shard : sources.back().shards) check_tokenizer(*shard, tokenizer);
  }
  return TrainingBatches(std::move(sources),
                         {.seq_tokens = recipe.data.seq_tokens,
                          .sequences_per_step =
                              recipe.schedule.batch_tokens / recipe.data.seq_tokens,
                          .seed = static_cast<uint64_t>(recipe.run.seed),
                          .shuffle = recipe.data.shuffle});
}

std::unique_ptr<EvaluationBatches> open_valid_data(const Recipe& recipe,
                                                   const Tokenizer& tokenizer) {
  if (recipe.data.valid.empty()) return nullptr;
  auto shards = open_shards(recipe.data.valid);
  for (const auto& shard : shards) check_tokenizer(*shard, tokenizer);
  return std::make_unique<EvaluationBatches>(std::move(shards), recipe.data.seq_tokens,
                                             recipe.eval.tokens);
}

}  // namespace lh
