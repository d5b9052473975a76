#include "backend/utility_gate.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/cpu/parallel.h"
#include "backend/operands.h"
#include "base/philox.h"

namespace lh::cpu {
namespace {

constexpr double kFloor = 1e-8;

/// A gate of one logit: everything that forward and backward have in common.
template <typename Real>
struct Gated {
  Real u = 0;          // clipped
  bool moves = true;   // not held by the clip
  bool kept = false;   // z: by the threshold, or by the draw

  Gated(Real x, const UtilityGate& gate) {
    u = 1 / (1 + std::exp(-x));
    const auto clip = static_cast<Real>(gate.clip);
    if (gate.clip > 0) {
      moves = u > clip && u < 1 - clip;
      u = std::min(std::max(u, clip), 1 - clip);
    }
    kept = u >= static_cast<Real>(gate.threshold);
  }
};

/// The gate before its logarithm, without the floor.
template <typename Real>
Real openness(const Gated<Real>& g, const UtilityGate& gate) {
  if (gate.mode == GateMode::kSoft || gate.mode == GateMode::kSample) return g.u;
  const auto alpha = static_cast<Real>(gate.alpha);
  return (1 - alpha) * g.u + (g.kept ? (gate.weighted ? alpha * g.u : alpha) : Real(0));
}

/// Its derivative by u.
template <typename Real>
Real slope(const Gated<Real>& g, const UtilityGate& gate) {
  if (gate.mode == GateMode::kSoft || gate.mode == GateMode::kSample) return 1;
  const bool weighted = gate.weighted && g.kept;
  if (gate.mode == GateMode::kHard) return weighted ? 1 : 0;
  return weighted ? Real(1) : static_cast<Real>(1 - gate.alpha);
}

bool is_counted(const UtilityGate& gate, int64_t row) {
  return !gate.rows.defined() || gate.rows.data<int64_t>()[row] >= 0;
}

bool is_drawn(const UtilityGate& gate, int64_t row, int64_t head, double u) {
  const auto number = static_cast<uint64_t>(gate.rows.data<int64_t>()[row]);
  const PhiloxBlock block =
      philox4x32({static_cast<uint32_t>(number), static_cast<uint32_t>(number >> 32),
                  static_cast<uint32_t>(head), 0},
                 gate.draw_key);
  return static_cast<double>(block[0] >> 8) * 0x1.0p-24 < u;
}

}  // namespace

void utility_gate_forward(const Tensor& logits, const UtilityGate& gate, Tensor& bias) {
  check_utility_gate(logits, gate, "utility_gate");
  check_sum(bias, logits.shape(), logits.dtype(), "utility_gate", "bias");
  const int64_t heads = logits.size(1);
  dispatch_float(logits.dtype(), "utility_gate", [&]<typename T>() {
    using Real = accumulate_t<T>;
    const T* x = logits.data<T>();
    Real* out = bias.data<Real>();
    for_each_block(logits.numel(), kFlatBlock, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        Gated<Real> g(static_cast<Real>(x[i]), gate);
        const bool open_or_closed = gate.mode == GateMode::kHard || gate.mode == GateMode::kSample;
        if (gate.mode == GateMode::kSample)
          g.kept = is_drawn(gate, i / heads, i % heads, static_cast<double>(g.u));
        if (open_or_closed && !g.kept)
          out[i] = -std::numeric_limits<Real>::infinity();
        else if (open_or_closed && !(gate.weighted && gate.mode == GateMode::kHard))
          out[i] = 0;
        else
          out[i] = std::log(openness(g, gate) + static_cast<Real>(kFloor));
      }
    });
  });
}

void utility_gate_backward(const Tensor& logits, const UtilityGate& gate, const Tensor& dbias,
                           Tensor& d_logits) {
  check_utility_gate(logits, gate, "utility_gate_backward");
  check_sum(dbias, logits.shape(), logits.dtype(), "utility_gate_backward", "dbias");
  check_shape(d_logits, logits.shape(), "utility_gate_backward", "d_logits");
  check_dtype(d_logits, logits.dtype(), "utility_gate_backward", "d_logits");
  check_contiguous(d_logits, "utility_gate_backward", "d_logits");
  const int64_t heads = logits.size(1);
  dispatch_float(logits.dtype(), "utility_gate_backward", [&]<typename T>() {
    using Real = accumulate_t<T>;
    const T* x = logits.data<T>();
    const Real* db = dbias.data<Real>();
    T* dx = d_logits.data<T>();
    for_each_block(logits.numel(), kFlatBlock, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const Gated<Real> g(static_cast<Real>(x[i]), gate);
        const Real by_u = slope(g, gate);
        Real sum = by_u == 0 ? 0
                             : db[i] * by_u * g.u * (1 - g.u) /
                                   (openness(g, gate) + static_cast<Real>(kFloor));
        if (gate.pull != 0 && is_counted(gate, i / heads))
          sum += static_cast<Real>(gate.pull) * g.u * (1 - g.u);
        dx[i] = T(g.moves ? sum : 0);
      }
    });
  });
}

void utility_values(const Tensor& logits, const UtilityGate& gate, Tensor& u) {
  check_utility_gate(logits, gate, "utility_values");
  check_sum(u, logits.shape(), logits.dtype(), "utility_values", "u");
  const int64_t heads = logits.size(1);
  dispatch_float(logits.dtype(), "utility_values", [&]<typename T>() {
    using Real = accumulate_t<T>;
    const T* x = logits.data<T>();
    Real* out = u.data<Real>();
    for_each_block(logits.numel(), kFlatBlock, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        out[i] = is_counted(gate, i / heads) ? Gated<Real>(static_cast<Real>(x[i]), gate).u : 0;
    });
  });
}

}  // namespace lh::cpu
