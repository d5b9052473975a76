// Losses over rows of logits on the device; logits are f32.
#include "backend/loss.h"

#include "backend/cuda/kernel_call.h"
#include "backend/loss_operands.h"
#include "kernels/loss/cross_entropy.h"
#include "kernels/loss/kl.h"

namespace lh::cuda {
namespace {

kernels::SoftmaxStatistics rows_of(const Tensor& statistics) {
  float* top = statistics.data<float>();
  return {top, top + statistics.size(1), top + 2 * statistics.size(1)};
}

kernels::SoftmaxChunk chunk_of(const Tensor& logits, const VocabularyChunk& chunk,
                               const Tensor& targets, double scale, std::string_view op) {
  check_dtype(logits, DType::kF32, op, "logits");
  kernels::SoftmaxChunk p;
  p.logits = logits.data<float>();
  p.targets = targets.defined() ? targets.data<int32_t>() : nullptr;
  p.scale = static_cast<float>(scale);
  p.rows = narrow(logits.size(0), op, "rows");
  p.columns = narrow(logits.size(1), op, "columns");
  p.first = narrow(chunk.first, op, "first column");
  p.vocab = narrow(chunk.vocab, op, "vocab");
  return p;
}

/// The dtype of an optional gradient, f32 or bf16.
DType dtype_of(const Tensor* gradient) {
  return gradient == nullptr ? DType::kF32 : gradient->dtype();
}

}  // namespace

void cross_entropy(Tensor& logits, const Tensor& targets, double logit_scale, Tensor& losses,
                   Tensor* d_logits) {
  check_logits(logits, {0, logits.size(1)}, targets, d_logits, "cross_entropy");
  check_dtype(logits, DType::kF32, "cross_entropy", "logits");
  check_sum(losses, {logits.size(0)}, DType::kF32, "cross_entropy", "losses");
  dispatch_kernel(dtype_of(d_logits), "cross_entropy", [&]<typename T>() {
    kernels::CrossEntropyParams<kernel_t<T>> p;
    p.logits = logits.data<float>();
    p.targets = targets.data<int32_t>();
    p.losses = losses.data<float>();
    p.d_logits = d_logits == nullptr ? nullptr : pointer<T>(*d_logits);
    p.logit_scale = static_cast<float>(logit_scale);
    p.rows = narrow(logits.size(0), "cross_entropy", "rows");
    p.vocab = narrow(logits.size(1), "cross_entropy", "vocab");
    call("cross_entropy", {&logits, &targets, &losses, d_logits == nullptr ? &logits : d_logits},
         [&](gpu::Stream stream) { kernels::cross_entropy(p, stream); });
  });
}

void softmax_statistics(const Tensor& logits, const VocabularyChunk& chunk, const Tensor& targets,
                        double logit_scale, Tensor& statistics) {
  check_logits(logits, chunk, targets, nullptr, "softmax_statistics");
  check_statistics(statistics, logits, "softmax_statistics");
  call("softmax_statistics", {&logits, &targets, &statistics}, [&](gpu::Stream stream) {
    kernels::softmax_statistics(
        chunk_of(logits, chunk, targets, logit_scale, "softmax_statistics"), rows_of(statistics),
        stream);
  });
}

void cross_entropy_losses(const Tensor& statistics, const Tensor& targets, Tensor& losses) {
  check_loss_rows(statistics, targets, losses, "cross_entropy_losses");
  check_dtype(statistics, DType::kF32, "cross_entropy_losses", "statistics");
  call("cross_entropy_losses", {&statistics, &targets, &losses}, [&](gpu::Stream stream) {
    kernels::cross_entropy_losses(rows_of(statistics), targets.data<int32_t>(),
                                  losses.data<float>(),
                                  narrow(losses.size(0), "cross_entropy_losses", "rows"), stream);
  });
}

void cross_entropy_gradient(const Tensor& logits, const VocabularyChunk& chunk,
                            const Tensor& targets, double logit_scale, const Tensor& statistics,
                            Tensor& d_logits) {
  check_logits(logits, chunk, targets, &d_logits, "cross_entropy_gradient");
  check_statistics(statistics, logits, "cross_entropy_gradient");
  dispatch_kernel(d_logits.dtype(), "cross_entropy_gradient", [&]<typename T>() {
    call("cross_entropy_gradient", {&logits, &targets, &statistics, &d_logits}, [&](gpu::Stream stream) {
      kernels::cross_entropy_gradient(
          chunk_of(logits, chunk, targets, logit_scale, "cross_entropy_gradient"),
          rows_of(statistics), pointer<T>(d_logits), stream);
    });
  });
}

void kl_divergence(const Tensor& teacher, const Tensor& student, const VocabularyChunk& chunk,
                   const Tensor& targets, double temperature, const Tensor& teacher_statistics,
                   const Tensor& student_statistics, Tensor& losses, Tensor* d_student) {
  check_logits(student, chunk, targets, d_student, "kl_divergence");
  check_like(teacher, student, "kl_divergence", "teacher");
  check_contiguous(teacher, "kl_divergence", "teacher");
  check_statistics(teacher_statistics, student, "kl_divergence");
  check_statistics(student_statistics, student, "kl_divergence");
  check_sum(losses, {student.size(0)}, DType::kF32, "kl_divergence", "losses");
  dispatch_kernel(dtype_of(d_student), "kl_divergence", [&]<typename T>() {
    kernels::KlParams<kernel_t<T>> p;
    p.teacher = teacher.data<float>();
    p.student = student.data<float>();
    p.teacher_statistics = rows_of(teacher_statistics);
    p.student_statistics = rows_of(student_statistics);
    p.targets = targets.data<int32_t>();
    p.losses = losses.data<float>();
    p.d_student = d_student == nullptr ? nullptr : pointer<T>(*d_student);
    p.temperature = static_cast<float>(temperature);
    p.rows = narrow(student.size(0), "kl_divergence", "rows");
    p.columns = narrow(student.size(1), "kl_divergence", "columns");
    p.first = chunk.first == 0;
    call("kl_divergence",
         {&student, &teacher, &targets, &teacher_statistics, &student_statistics, &losses,
          d_student == nullptr ? &student : d_student},
         [&](gpu::Stream stream) { kernels::kl_divergence(p, stream); });
  });
}

}  // namespace lh::cuda
