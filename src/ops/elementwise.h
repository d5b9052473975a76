// Sums, products, activations and conversions, element by element.
#pragma once

#include "autograd/variable.h"

namespace lh {

/// alpha a + beta b. Same shape and dtype.
Variable add(const Variable& a, const Variable& b, double alpha = 1, double beta = 1);

/// alpha a.
Variable scale(const Variable& a, double alpha);

/// a * b. Same shape and dtype.
Variable multiply(const Variable& a, const Variable& b);

/// x converted to dtype; the gradient is converted back.
Variable cast(const Variable& x, DType dtype);

/// silu(gate) * up (Shazeer 2020). Recomputed, not stored, where a later op keeps it.
Variable swiglu(const Variable& gate, const Variable& up);

/// x * sigmoid(gate). Recomputed, not stored, where a later op keeps it.
Variable sigmoid_gate(const Variable& x, const Variable& gate);

}  // namespace lh
