// Distillation: the divergence of a student's distribution from a teacher's, from rows of logits, a chunk
// of columns at a time. The first pass is softmax_statistics of both.
#pragma once
#include "kernels/loss/softmax_statistics.h"

namespace lh::kernels {

/// With p = softmax(teacher / temperature), q = softmax(student / temperature), row by row:
/// losses = (first chunk ? 0 : losses) + temperature^2 sum over the chunk of p (log p - log q);
/// d_student = temperature (q - p). Both 0 for rows whose target is -1.
template <class T>
struct KlParams {
  const float* teacher = nullptr;  // [rows, columns]
  const float* student = nullptr;  // [rows, columns]
  SoftmaxStatistics teacher_statistics, student_statistics;  // of all columns, scaled by 1 / temperature
  const std::int32_t* targets = nullptr;                     // [rows]
  float* losses = nullptr;                                   // [rows]
  T* d_student = nullptr;  // [rows, columns]; or null. May be student when T is float
  float temperature = 1.0f;
  int rows = 0, columns = 0;
  bool first = true;  // the chunk that starts the losses
};

template <class T>
void kl_divergence(const KlParams<T>& p, xpu::Stream stream);

}  // namespace lh::kernels
