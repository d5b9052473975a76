// Cosines and sines of rotary positions, with the scalings that long-context checkpoints use.
#pragma once

#include "config/model_config.h"
#include "tensor/tensor.h"

namespace lh {

/// Tables in the layout of backend/rope.h: [positions, head_dim], head_dim / 2 cosines then sines.
/// Formulas follow Hugging Face's modeling_rope_utils; angles are computed in double.
class RopeTable {
 public:
  /// dtype f32, or f64 for fp64 models. Covers model.max_position positions.
  RopeTable(const ModelConfig& model, DType dtype, Device device = kCpuDevice);

  /// The table for a batch whose longest sequence has `longest` tokens: longrope switches its
  /// divisors past original_max_position. Throws when `longest` exceeds max_position.
  const Tensor& table(int64_t longest) const;
  /// Whether table() gives different tables for different lengths (longrope).
  bool depends_on_length() const { return long_.defined(); }

 private:
  int64_t max_position_;
  int64_t switch_after_;  // beyond this many tokens long_ is used (longrope only)
  Tensor short_;
  Tensor long_;
};

}  // namespace lh
