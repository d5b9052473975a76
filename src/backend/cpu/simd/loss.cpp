#include "backend/cpu/simd/loss.h"

#include "backend/cpu/simd/vec.h"

namespace lh::cpu::LH_SIMD_NAMESPACE {

template <typename S>
S softmax_numerators(S* z, int64_t n, S stretch, S* top) {
  using V = vec_t<S>;
  // The largest exponent is 0 whatever the sign of stretch.
  const S sign = stretch < 0 ? S(-1) : S(1);
  V best = splat<V>(sign * z[0]);
  for_lanes<S>(n, [&](int64_t i, auto tail) {
    const V v = blend_tail(sign * load(z + i, tail), best, tail);
    best = v > best ? v : best;
  });
  const S shift = sign * max_lanes(best);
  // Four sums hide the latency of the additions; their order is fixed.
  V sums[4] = {};
  int turn = 0;
  for_lanes<S>(n, [&](int64_t i, auto tail) {
    const V e = exponential(stretch * (load(z + i, tail) - shift));
    store(z + i, e, tail);
    sums[turn] += blend_tail(e, V{}, tail);
    turn = (turn + 1) & 3;
  });
  *top = shift;
  return sum_lanes((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

void scale_to_bf16(const float* z, float alpha, uint16_t* out, int64_t n) {
  for_lanes<float>(n, [&](int64_t i, auto tail) { store(out + i, alpha * load(z + i, tail), tail); });
}

template float softmax_numerators(float*, int64_t, float, float*);
template double softmax_numerators(double*, int64_t, double, double*);

}  // namespace lh::cpu::LH_SIMD_NAMESPACE
