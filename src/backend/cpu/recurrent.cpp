// States are small beside activations, so these are plain loops over heads.
#include "backend/recurrent.h"

#include <algorithm>

#include "backend/affine.h"
#include "backend/cpu/parallel.h"

namespace lh::cpu {
namespace {

/// out [k, v] = a in + b with a the transition of one segment and head, or its transpose.
template <typename T>
void step(const AffineSize& size, const T* a, const T* in, const T* b, bool transposed, T* out) {
  for (int64_t i = 0; i < size.k; ++i) {
    T* row = out + i * size.v;
    for (int64_t c = 0; c < size.v; ++c) row[c] = b[i * size.v + c];
    const int64_t first = size.kind == AffineKind::kMatrix ? 0 : i;
    const int64_t last = size.kind == AffineKind::kMatrix ? size.k : i + 1;
    for (int64_t l = first; l < last; ++l) {
      const T factor = size.kind == AffineKind::kScalar ? a[0]
                       : size.kind == AffineKind::kDiagonal
                           ? a[i]
                           : (transposed ? a[l * size.k + i] : a[i * size.k + l]);
      for (int64_t c = 0; c < size.v; ++c) row[c] += factor * in[l * size.v + c];
    }
  }
}

}  // namespace

void affine_fold(const Tensor& a, const Tensor& b, bool backwards, Tensor& out) {
  const AffineSize size = check_affine(a, b, out, "affine_fold");
  dispatch_float(b.dtype(), "affine_fold", [&]<typename T>() {
    if constexpr (!std::is_same_v<T, bf16>) {
      const int64_t state = size.k * size.v;
      const auto at = [&](int64_t j, int64_t head) { return (j * size.heads + head) * state; };
      for_each_block(size.heads, 1, [&](int64_t, int64_t head, int64_t) {
        for (int64_t i = 0; i < size.segments; ++i) {
          const int64_t j = backwards ? size.segments - 1 - i : i;
          T* to = out.data<T>() + at(j, head);
          if (i == 0) {
            std::fill(to, to + state, T{0});
            continue;
          }
          const int64_t from = backwards ? j + 1 : j - 1;
          step(size, a.data<T>() + (from * size.heads + head) * size.transition(),
               out.data<T>() + at(from, head), b.data<T>() + at(from, head), backwards, to);
        }
      });
    }
  });
}

void affine_transition_gradient(const Tensor& g, const Tensor& s, Tensor& da) {
  const AffineSize size = check_affine(da, g, s, "affine_transition_gradient");
  dispatch_float(g.dtype(), "affine_transition_gradient", [&]<typename T>() {
    if constexpr (!std::is_same_v<T, bf16>) {
      const auto dot = [&](const T* x, const T* y, int64_t n) {
        double sum = 0;
        for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(y[i]);
        return static_cast<T>(sum);
      };
      for_each_block(size.segments * size.heads, 1, [&](int64_t, int64_t item, int64_t) {
        const T* gradient = g.data<T>() + item * size.k * size.v;
        const T* state = s.data<T>() + item * size.k * size.v;
        T* to = da.data<T>() + item * size.transition();
        if (size.kind == AffineKind::kScalar) to[0] = dot(gradient, state, size.k * size.v);
        if (size.kind == AffineKind::kDiagonal)
          for (int64_t i = 0; i < size.k; ++i)
            to[i] = dot(gradient + i * size.v, state + i * size.v, size.v);
        if (size.kind == AffineKind::kMatrix)
          for (int64_t i = 0; i < size.k; ++i)
            for (int64_t l = 0; l < size.k; ++l)
              to[i * size.k + l] = dot(gradient + i * size.v, state + l * size.v, size.v);
      });
    }
  });
}

}  // namespace lh::cpu
