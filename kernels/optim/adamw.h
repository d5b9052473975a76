// AdamW (Loshchilov and Hutter 2019) over all parameters in one launch, arithmetic in fp32.
#pragma once
#include "kernels/elementwise/chunks.h"
#include "kernels/optim/scalars.h"

namespace lh::kernels {

/// One parameter, an entry of the list in device memory.
struct AdamWTensor {
  float* p = nullptr;             // [n] master
  const float* g = nullptr;       // [n]
  float* m = nullptr;             // [n]
  float* v = nullptr;             // [n]
  xpu::bf16* compute = nullptr;   // [n] receives p rounded; or null
  std::int64_t n = 0;             // above 0
  std::int64_t first_chunk = 0;   // chunks of the entries before this one
  double lr_multiplier = 1, weight_decay = 0;
  bool operator==(const AdamWTensor&) const = default;
};

struct AdamWParams {
  const AdamWTensor* tensors = nullptr;  // [count] in device memory
  int count = 0;
  std::int64_t chunks = 0;  // of all entries
  double learning_rate = 0, beta1 = 0, beta2 = 0, eps = 0;
  const double* scalars = nullptr;  // [kStepScalars] in device memory
};

/// With lr = learning_rate rate_factor lr_multiplier: g = grad_scale g; m = b1 m + (1 - b1) g;
/// v = b2 v + (1 - b2) g^2; p = (1 - lr weight_decay) p - lr m_hat / (sqrt(v_hat) + eps).
/// A grad_scale that is not finite leaves everything as it is.
void adamw(const AdamWParams& params, xpu::Stream stream);

}  // namespace lh::kernels
