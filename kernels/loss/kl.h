// Distillation: the divergence of a student's distribution from a teacher's, from rows of logits.
#pragma once
#include "kernels/xpu/types.h"

namespace lh::kernels {

/// With p = softmax(teacher / temperature), q = softmax(student / temperature), row by row:
/// loss = KL(p || q) = sum p (log p - log q);  d_student = (q - p) grad_scale / temperature.
/// Rows whose `valid` is 0 have loss and gradient 0.
template <class T>
struct KlParams {
  const float* teacher = nullptr;        // [rows, vocab]
  const float* student = nullptr;        // [rows, vocab]
  const std::uint8_t* valid = nullptr;   // [rows]; null: all
  float* losses = nullptr;               // [rows]
  T* d_student = nullptr;                // [rows, vocab]; or null. May be student when T is float
  float temperature = 1.0f, grad_scale = 1.0f;
  int rows = 0, vocab = 0;
};

template <class T>
void kl_divergence(const KlParams<T>& p, xpu::Stream stream);

}  // namespace lh::kernels
