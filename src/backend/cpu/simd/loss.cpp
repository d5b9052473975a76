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

template <typename S>
S largest(const S* z, int64_t n, S stretch) {
  using V = vec_t<S>;
  V best = splat<V>(stretch * z[0]);
  for_lanes<S>(n, [&](int64_t i, auto tail) {
    const V v = blend_tail(stretch * load(z + i, tail), best, tail);
    best = v > best ? v : best;
  });
  return max_lanes(best);
}

template <typename S>
S exponential_sum(const S* z, int64_t n, S stretch, S top) {
  using V = vec_t<S>;
  V sums[4] = {};
  int turn = 0;
  for_lanes<S>(n, [&](int64_t i, auto tail) {
    sums[turn] += blend_tail(exponential(stretch * load(z + i, tail) - top), V{}, tail);
    turn = (turn + 1) & 3;
  });
  return sum_lanes((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

template <typename S>
void exponentials(const S* z, int64_t n, S stretch, S top, S* out) {
  for_lanes<S>(n, [&](int64_t i, auto tail) {
    store(out + i, exponential(stretch * load(z + i, tail) - top), tail);
  });
}

template <typename S>
S divergence_terms(const S* t, S* s, int64_t n, S stretch, S log_t, S log_s) {
  using V = vec_t<S>;
  V sums[4] = {};
  int turn = 0;
  for_lanes<S>(n, [&](int64_t i, auto tail) {
    const V log_p = stretch * load(t + i, tail) - log_t, log_q = stretch * load(s + i, tail) - log_s;
    const V p = exponential(log_p);
    // A token the teacher rules out costs nothing, and 0 times -inf would be NaN.
    const V term = p > S{0} ? p * (log_p - log_q) : V{};
    store(s + i, exponential(log_q) - p, tail);
    sums[turn] += blend_tail(term, V{}, tail);
    turn = (turn + 1) & 3;
  });
  return sum_lanes((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

template float softmax_numerators(float*, int64_t, float, float*);
template double softmax_numerators(double*, int64_t, double, double*);
template float largest(const float*, int64_t, float);
template double largest(const double*, int64_t, double);
template float exponential_sum(const float*, int64_t, float, float);
template double exponential_sum(const double*, int64_t, double, double);
template float divergence_terms(const float*, float*, int64_t, float, float, float);
template double divergence_terms(const double*, double*, int64_t, double, double, double);
template void exponentials(const float*, int64_t, float, float, float*);
template void exponentials(const double*, int64_t, double, double, double*);

}  // namespace lh::cpu::LH_SIMD_NAMESPACE
