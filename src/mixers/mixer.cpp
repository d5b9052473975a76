#include "mixers/mixer.h"

#include <fmt/ranges.h>

#include "mixers/lla.h"
#include "mixers/parallax.h"
#include "mixers/sliding_window.h"
#include "mixers/softmax.h"

namespace lh {

std::unique_ptr<TokenMixer> make_mixer(const MixerContext& context) {
  // One row per kind; config/model_config.h lists the same names for recipes.
  if (context.config.kind == "softmax") return std::make_unique<SoftmaxMixer>(context);
  if (context.config.kind == "sliding_window") return std::make_unique<SlidingWindowMixer>(context);
  if (context.config.kind == "parallax") return std::make_unique<ParallaxMixer>(context);
  if (context.config.kind == "lla") return std::make_unique<LlaMixer>(context);
  fail<ConfigError>("unknown mixer kind '{}': expected one of {}", context.config.kind,
                    fmt::join(mixer_kinds(), ", "));
}

}  // namespace lh
