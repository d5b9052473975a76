// Checks of Parallax that every device makes before it touches memory.
#pragma once

#include "backend/attention_operands.h"
#include "backend/parallax.h"

namespace lh {

/// ShapeError with `op` and both facts when operands do not fit each other or the plan
/// (check_attention).
void check_parallax(const ParallaxInputs& inputs, const AttentionPlan& plan,
                    const ParallaxResult& result, std::string_view op);
void check_parallax_gradients(const ParallaxInputs& inputs, const ParallaxResult& result,
                              const Tensor& d_out, const AttentionPlan& plan,
                              const ParallaxGradients& gradients, std::string_view op);

}  // namespace lh
