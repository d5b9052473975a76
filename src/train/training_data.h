// The recipe's data, opened and checked.
#pragma once

#include <memory>

#include "config/recipe.h"
#include "data/batcher.h"
#include "tokenizer/tokenizer.h"

namespace lh {

TrainingBatches open_training_data(const Recipe& recipe, const Tokenizer& tokenizer);

/// nullptr when the recipe names no held-out data.
std::unique_ptr<EvaluationBatches> open_valid_data(const Recipe& recipe,
                                                   const Tokenizer& tokenizer);

}  // namespace lh
