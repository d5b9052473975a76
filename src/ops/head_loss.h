// What the losses over a language-model head share: checks, and the node whose gradients are ready.
#pragma once

#include <string_view>

#include "autograd/variable.h"
#include "backend/operands.h"
#include "ops/head_chunks.h"

namespace lh {

/// x [n, d], weight [vocab, d], targets [n] i32; ShapeError names `op` and the tensors.
void check_head(const Variable& x, const Variable& weight, const Tensor& targets,
                std::string_view op);

/// The sum of losses [n] as a variable [1] whose backward scales the gradients that were made with it.
Variable record_head_loss(const char* op, const Variable& x, const Variable& weight,
                          const Tensor& losses, HeadGradients gradients);

}  // namespace lh
