// The recipe's data, opened and checked.
#pragma once

#include "config/recipe.h"
#include "data/batcher.h"
#include "tokenizer/tokenizer.h"
#include "train/evaluate.h"

namespace lh {

TrainingBatches open_training_data(const Recipe& recipe, const Tokenizer& tokenizer);

/// Held-out shards and fresh examples of the tasks; empty when the recipe names neither.
ValidData open_valid_data(const Recipe& recipe, const Tokenizer& tokenizer);

}  // namespace lh
