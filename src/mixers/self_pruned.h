// Self-pruned key-value attention (SP-KV, Szilvasy et al. 2026, arXiv 2605.14037): a small network
// predicts from a token's hidden state how useful its key will be to later queries, per kv head.
//
//   u = sigmoid(W2 silu(W1 h + b1) + b2)          one logit per kv head, b2 starts at 5: all open
//   score(t, s) = q_t k_s / sqrt(d) + (t - s < window ? 0 : gate(u_s))
//
// gate() is soft, annealed or hard (backend/utility_gate.h) as the step's phase says; the loss is
// that of the model alone. In the annealed and hard phases the predictor's weights are frozen.
// Generation keeps the last `window` keys and, of older ones, those whose utility reaches the
// threshold. Where kept keys are weighted by their utility (the paper's TASG) it keeps all.
//
// With global_kv_heads nothing is learned: those heads keep every key, the others none (the hybrid of
// section 4, local and global heads side by side).
#pragma once

#include <vector>

#include "mixers/attention_projections.h"
#include "mixers/context_mix.h"

namespace lh {

class SelfPrunedCache;
class WeightedCache;

class SelfPrunedMixer final : public TokenMixer {
 public:
  explicit SelfPrunedMixer(const MixerContext& context);
  Variable forward(const Variable& x, const SequenceLayout& layout) const override;
  std::unique_ptr<MixerCache> make_cache(int64_t max_tokens) const override;
  /// Always with hard gates.
  Variable forward_cached(const Variable& x, const SequenceLayout& rows,
                          MixerCache& cache) const override;
  /// Of all causal pairs: what the gates close depends on the data.
  void describe(MixerReport& report) const override;
  MixerFlops flops(const SequenceLayout& layout) const override;
  ContextParallelClass context_parallel_class() const override {
    return ContextParallelClass::kLogSumExp;
  }

 private:
  /// [N, D] -> the bias of attention [N, G].
  Variable gates(const Variable& x, const SequenceLayout& layout, const GatePhase& phase) const;
  /// Logits of the utilities [N, G]; a frozen predictor's weights are constants.
  Variable utility_logits(const Variable& x, bool frozen) const;
  UtilityGate gate_of(const GatePhase& phase, const SequenceLayout& layout) const;
  /// The same from bits of kept keys, [N, kv_heads] of them.
  Variable hard_gates(const std::vector<uint8_t>& bits, int64_t kv_heads) const;
  /// The same of global_kv_heads.
  Variable fixed_gates(int64_t rows) const;
  /// Of attention with the gates of a phase.
  AttentionMask mask(const GatePhase& phase) const;
  /// Heads' outputs [n, H, d] of rows that follow those in the cache, which is left as it is.
  Variable attend_after(const SelfPrunedCache& past, const Tensor& q, const Tensor& k,
                        const Tensor& v, const Tensor& bias) const;
  /// forward_cached() where every key is stored with its bias.
  Variable forward_weighted(const Variable& x, const SequenceLayout& rows, WeightedCache& cache) const;
  void report_density(const Variable& x, const SequenceLayout& layout) const;
  double scale() const { return projections_.scale(); }

  AttentionProjections projections_;
  ContextScheme scheme_;
  std::string prefix_;
  AttentionMask mask_;  // bias_window is the window
  double threshold_, clip_;
  bool weighted_;
  std::vector<int64_t> global_heads_;  // not empty: instead of the predictor
  Variable one_fixed_;                 // then, the gates of one row, on the device
  Parameter *up_weight_ = nullptr, *up_bias_ = nullptr, *down_weight_ = nullptr,
            *down_bias_ = nullptr;
  DType dtype_;
  Device device_;
};

}  // namespace lh
