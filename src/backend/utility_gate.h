// Gates of self-pruned key-value attention (SP-KV, arXiv 2605.14037): logits of the utility that a
// key will have become the bias that attention adds to its scores.
#pragma once

#include <cstdint>

#include "tensor/dispatch.h"
#include "tensor/tensor.h"

namespace lh {

/// u = sigmoid(logit), z = [u >= threshold].
enum class GateMode : uint8_t {
  kSoft,    // log(u + 1e-8)
  kAnneal,  // log((1 - alpha) u + alpha z + 1e-8)
  kHard,    // 0 where z, else -inf: the key is dropped
};

struct UtilityGate {
  GateMode mode = GateMode::kHard;
  double alpha = 1;        // kAnneal only
  double threshold = 0.5;  // above 0, below 1
};

}  // namespace lh

LH_BACKENDS(
    /// logits [n, kv_heads] of any floating dtype -> bias [n, kv_heads] f32 (f64 for f64), in which
    /// it is computed. Contiguous.
    void utility_gate_forward(const Tensor& logits, const UtilityGate& gate, Tensor& bias);
    /// d_logits like logits, from dbias like bias: dbias (1 - alpha) u (1 - u) / (gate + 1e-8),
    /// where alpha is 0 when soft; 0 when hard.
    void utility_gate_backward(const Tensor& logits, const UtilityGate& gate, const Tensor& dbias,
                               Tensor& d_logits);)
