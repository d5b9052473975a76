#include "backend/cpu/simd/optim.h"

#include "backend/cpu/simd/vec.h"

namespace lh::cpu::LH_SIMD_NAMESPACE {

template <typename S, typename T>
void adamw_step(S* p, const S* g, S* m, S* v, T* copy, const AdamWCoefficients<S>& c, int64_t n) {
  const S fresh1 = 1 - c.beta1, fresh2 = 1 - c.beta2;
  for_lanes<S>(n, [&](int64_t i, auto tail) {
    const auto gradient = load(g + i, tail) * c.grad_scale;
    const auto first = c.beta1 * load(m + i, tail) + fresh1 * gradient;
    const auto second = c.beta2 * load(v + i, tail) + fresh2 * gradient * gradient;
    store(m + i, first, tail);
    store(v + i, second, tail);
    const auto updated = c.keep * load(p + i, tail) -
                         c.step_size * first / (square_root(second) * c.root_v_scale + c.eps);
    store(p + i, updated, tail);
    if (copy != nullptr) store(copy + i, updated, tail);
  });
}

template <typename S, typename T>
void apply_update(S* p, const S* update, S keep, S learning_rate, T* copy, int64_t n) {
  for_lanes<S>(n, [&](int64_t i, auto tail) {
    const auto updated = keep * load(p + i, tail) - learning_rate * load(update + i, tail);
    store(p + i, updated, tail);
    if (copy != nullptr) store(copy + i, updated, tail);
  });
}

#define LH_INSTANTIATE(S, T)                                                                     \
  template void adamw_step(S*, const S*, S*, S*, T*, const AdamWCoefficients<S>&, int64_t);      \
  template void apply_update(S*, const S*, S, S, T*, int64_t);
LH_INSTANTIATE(float, float)
LH_INSTANTIATE(float, uint16_t)
LH_INSTANTIATE(double, double)

}  // namespace lh::cpu::LH_SIMD_NAMESPACE
