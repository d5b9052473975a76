// Gates of self-pruned key-value attention (SP-KV, arXiv 2605.14037): logits of the utility that a
// key will have become the bias that attention adds to its scores.
#pragma once

#include <cstdint>
#include <string_view>

#include "tensor/dispatch.h"
#include "tensor/tensor.h"

namespace lh {

/// u = sigmoid(logit) held between clip and 1 - clip, z = [u >= threshold], k = weighted ? u : 1.
enum class GateMode : uint8_t {
  kSoft,    // log(u + 1e-8)
  kSample,  // 0 with the chance u, else -inf; the gradient is that of kSoft (straight-through)
  kAnneal,  // log((1 - alpha) u + alpha z k + 1e-8)
  kHard,    // where z, 0 or (weighted) log(u + 1e-8), else -inf: the key is dropped
};

struct UtilityGate {
  GateMode mode = GateMode::kHard;
  double alpha = 1;        // kAnneal only
  double threshold = 0.5;  // above 0, below 1
  double clip = 0;         // below 1/2; a utility that it holds has no gradient
  bool weighted = false;   // a kept key's gate is its utility
  /// Added by backward to the loss's derivative by each utility: that of a term of the loss which is
  /// linear in them and which nothing else computes.
  double pull = 0;
  /// [n] i64: what a row's draws are named by, whatever the split of the rows; below 0: a row that pull
  /// leaves out. May be undefined except in kSample: no row is left out.
  Tensor rows = {};
  uint64_t draw_key = 0;  // kSample: another one in every mixer and step
};

/// 0 <= clip < 1/2; logits [n, kv_heads] contiguous and rows as above. ShapeError.
void check_utility_gate(const Tensor& logits, const UtilityGate& gate, std::string_view op);

}  // namespace lh

LH_BACKENDS(
    /// logits [n, kv_heads] of any floating dtype -> bias [n, kv_heads] f32 (f64 for f64), in which
    /// it is computed. Contiguous.
    void utility_gate_forward(const Tensor& logits, const UtilityGate& gate, Tensor& bias);
    /// d_logits like logits, from dbias like bias: (dbias o' / (o + 1e-8) + pull) u (1 - u) with o the
    /// gate before its logarithm and o' its derivative by u; 0 without pull when hard and not weighted.
    void utility_gate_backward(const Tensor& logits, const UtilityGate& gate, const Tensor& dbias,
                               Tensor& d_logits);
    /// u like bias: the utilities, 0 in rows that pull leaves out.
    void utility_values(const Tensor& logits, const UtilityGate& gate, Tensor& u);)
