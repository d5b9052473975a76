// KL divergence of softmax rows: loss and gradient by the student's logits.
// Tiling: a block of 512 threads per row. The first pass keeps running maxima and sums of both rows, the
//   second, from L2, adds up the loss and writes the gradient.
// Numerics: fp32; log p - log q is taken from logits, so that small probabilities keep their digits.
// Determinism: bitwise.
// Roofline: memory, 8 bytes read and sizeof(T) written per logit when the second reads hit L2. An
//   estimate, unmeasured.
#include "kernels/loss/kl.h"

#include "kernels/elementwise/map.h"
#include "kernels/loss/running_softmax.h"

namespace lh::kernels {

namespace {

constexpr int kThreads = 512;

template <class T, int N>
__global__ void __launch_bounds__(kThreads) kl_kernel(const KlParams<T> p) {
  XPU_SHARED(float, scratch, [kThreads / 32]);
  const int row = blockIdx.x;
  const std::int64_t base = static_cast<std::int64_t>(row) * p.vocab;
  if (p.valid && !p.valid[row]) {
    const float zeros[N] = {};
    for (int i = threadIdx.x * N; p.d_student && i < p.vocab; i += kThreads * N) {
      store<N>(p.d_student + base + i, zeros);
    }
    if (threadIdx.x == 0) p.losses[row] = 0.0f;
    return;
  }
  const float inverse = 1.0f / p.temperature;
  RunningSoftmax teacher, student;
  for (int i = threadIdx.x * N; i < p.vocab; i += kThreads * N) {
    float t[N], s[N];
    load<N>(p.teacher + base + i, t);
    load<N>(p.student + base + i, s);
    teacher.add<N>(t, inverse);
    student.add<N>(s, inverse);
  }
  const float log_t = teacher.log_sum(scratch), log_s = student.log_sum(scratch);
  float loss = 0.0f;
  for (int i = threadIdx.x * N; i < p.vocab; i += kThreads * N) {
    float t[N], s[N];
    load<N>(p.teacher + base + i, t);
    load<N>(p.student + base + i, s);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const float log_p = t[j] * inverse - log_t, log_q = s[j] * inverse - log_s;
      const float probability = expf(log_p);
      // A token the teacher rules out costs nothing, and 0 times -inf would be NaN.
      if (probability > 0.0f) loss += probability * (log_p - log_q);
      s[j] = (expf(log_q) - probability) * (p.grad_scale * inverse);
    }
    if (p.d_student) store<N>(p.d_student + base + i, s);
  }
  loss = xpu::block_sum(loss, scratch);
  if (threadIdx.x == 0) p.losses[row] = loss;
}

}  // namespace

template <class T>
void kl_divergence(const KlParams<T>& p, xpu::Stream stream) {
  if (p.vocab < 1 || !(p.temperature > 0.0f)) {
    throw xpu::Error("kl_divergence: vocab is " + std::to_string(p.vocab) + ", temperature is " +
                     std::to_string(p.temperature));
  }
  if (p.rows == 0) return;
  const xpu::LaunchConfig config{static_cast<unsigned>(p.rows), kThreads, 0, stream};
  if (p.vocab % 4 == 0 && aligned16(p.teacher) && aligned16(p.student) && aligned16(p.d_student)) {
    xpu::launch<kl_kernel<T, 4>>(config, p);
  } else {
    xpu::launch<kl_kernel<T, 1>>(config, p);
  }
}

template void kl_divergence(const KlParams<float>&, xpu::Stream);
template void kl_divergence(const KlParams<xpu::bf16>&, xpu::Stream);

}  // namespace lh::kernels
