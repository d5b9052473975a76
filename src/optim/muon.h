// Muon (Jordan et al. 2024): momentum, orthogonalised by Newton-Schulz iterations, for one matrix
// at a time. Variants and scalings as in the Parallax paper's co-design section.
#pragma once

#include "optim/optimizer.h"
#include "optim/param_groups.h"

namespace lh {

/// X <- a X + b (X X^T) X + c (X X^T)^2 X from G / (|G|_F + 1e-7), `steps` times, on the side with
/// fewer rows. variant keller: (3.4445, -4.7750, 2.0315), singular values end within about
/// [0.68, 1.13] in 5 steps; tilde: (2, -1.5, 0.5), converges to 1. gradient [rows, cols] f32 or f64.
Tensor newton_schulz(const Tensor& gradient, const std::string& variant, int64_t steps);

/// Factor on the orthogonal update: keller sqrt(max(1, rows / cols)), moonlight
/// 0.2 sqrt(max(rows, cols)).
double muon_scale(const std::string& scaling, int64_t rows, int64_t cols);

class MuonState {
 public:
  /// The part is the whole matrix or nothing of it.
  explicit MuonState(const OwnedParam& owned);
  /// scalars as in backend/optim.h.
  void step(const MuonConfig& config, double learning_rate, const Tensor& scalars);
  void append_state(std::vector<StateTensor>& state) const;

 private:
  OwnedParam owned_;
  Tensor momentum_;  // like the master; empty for those that do not own it
};

}  // namespace lh
