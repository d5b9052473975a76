// Starting a run from the weights of another model (the recipe's init section).
#pragma once

#include "config/recipe.h"
#include "models/decoder.h"
#include "tokenizer/tokenizer.h"
#include "train/team.h"

namespace lh {

/// Replaces the parameters of a new model by those at init.path: a run folder (its newest checkpoint), a
/// checkpoint, or a Hugging Face folder; all but those that init.fresh names. Nothing is changed when
/// something does not fit. The leader of a team reads, the others need not see the files. Does nothing
/// without init.path.
/// ConfigError for a path without weights, a pattern that matches no parameter, and other numbers or widths of
/// heads, which shapes do not always show; IoError with every tensor that does not fit. Warns about another
/// tokenizer and about other settings of the model that weights are trained for.
void load_initial_weights(const Recipe& recipe, const Tokenizer& tokenizer, Decoder& model,
                          const Team* team);

}  // namespace lh
