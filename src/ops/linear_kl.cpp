#include "ops/linear_kl.h"

#include <algorithm>

#include "backend/elementwise.h"
#include "backend/loss.h"
#include "ops/head_loss.h"

namespace lh {
namespace {

void check_teacher(const Teacher& teacher, const Variable& x, const Variable& weight) {
  const int64_t rows = x.size(0), vocab = weight.size(0);
  if (teacher.logits.defined()) {
    check_shape(teacher.logits, {rows, vocab}, "linear_kl", "teacher's logits");
    return;
  }
  if (!teacher.hidden.defined() || !teacher.head.defined())
    fail<ShapeError>("[linear_kl] the teacher has neither logits nor hidden states and a head");
  check_shape(teacher.hidden, {rows, teacher.head.size(1)}, "linear_kl", "teacher's hidden states");
  check_shape(teacher.head, {vocab, teacher.hidden.size(1)}, "linear_kl", "teacher's head");
  check_dtype(teacher.head, teacher.hidden.dtype(), "linear_kl", "teacher's head");
}

/// Logits of tokens [begin, end) and columns [first, last) in `dtype`, scaled as the teacher says.
Tensor teacher_logits(const Teacher& teacher, int64_t begin, int64_t end, int64_t first,
                      int64_t last, DType dtype) {
  const bool given = teacher.logits.defined();
  const Tensor made = given ? teacher.logits.slice(0, begin, end).slice(1, first, last)
                            : head_logits(teacher.hidden.slice(0, begin, end),
                                          teacher.head.slice(0, first, last));
  Tensor logits = Tensor::empty(made.shape(), dtype, made.device());
  LH_DISPATCH(made.device(), "linear_kl", copy(made, logits));
  if (!given && teacher.logit_scale != 1)
    LH_DISPATCH(made.device(), "linear_kl", scale(logits, teacher.logit_scale, logits));
  return logits;
}

}  // namespace

LinearKl linear_kl(const Variable& x, const Variable& weight, const Teacher& teacher,
                   const Tensor& targets, double temperature, double logit_scale,
                   std::optional<HeadChunks> chunks) {
  check_head(x, weight, targets, "linear_kl");
  check_teacher(teacher, x, weight);
  if (!(temperature > 0))
    fail<ShapeError>("[linear_kl] temperature: expected above 0, got {}", temperature);
  const int64_t rows = x.size(0), vocab = weight.size(0);
  const Device device = x.device();
  const DType wide = sum_dtype(x.dtype());
  if (!chunks) chunks = head_chunks(rows, vocab, x.dtype() == DType::kBF16 ? 10 : 8, device);
  HeadGradients gradients = HeadGradients::of(x, weight);
  Tensor losses = Tensor::empty({rows}, wide, device);
  for (int64_t begin = 0; begin < rows; begin += chunks->tokens) {
    const int64_t end = std::min(rows, begin + chunks->tokens);
    const Tensor tokens = x.value().slice(0, begin, end), valid = targets.slice(0, begin, end);
    TokenGradients part(gradients, x.value(), begin, end, !chunks->whole_vocabulary(vocab));
    Tensor losses_part = losses.slice(0, begin, end);
    Tensor of_teacher = Tensor::empty({3, end - begin}, wide, device);
    Tensor of_student = Tensor::empty_like(of_teacher);
    Tensor teachers, students;  // logits of the present chunk
    const auto make = [&](int64_t first, int64_t last) {
      teachers = Tensor(), students = Tensor();
      teachers = teacher_logits(teacher, begin, end, first, last, wide);
      students = head_logits(tokens, weight.value().slice(0, first, last));
      if (logit_scale != 1) LH_DISPATCH(device, "linear_kl", scale(students, logit_scale, students));
    };
    for (int64_t first = 0; first < vocab; first += chunks->columns) {
      make(first, std::min(vocab, first + chunks->columns));
      for (const auto& [logits, statistics] :
           {std::pair{&teachers, &of_teacher}, std::pair{&students, &of_student}})
        LH_DISPATCH(device, "linear_kl",
                    softmax_statistics(*logits, {first, vocab}, Tensor(), 1 / temperature,
                                       *statistics));
    }
    for (int64_t first = 0; first < vocab; first += chunks->columns) {
      // The only chunk is still there.
      if (!chunks->whole_vocabulary(vocab)) make(first, std::min(vocab, first + chunks->columns));
      Tensor* d_student = part.d_logits(students);
      LH_DISPATCH(device, "linear_kl",
                  kl_divergence(teachers, students, {first, vocab}, valid, temperature, of_teacher,
                                of_student, losses_part, d_student));
      if (d_student != nullptr && logit_scale != 1)
        LH_DISPATCH(device, "linear_kl", scale(*d_student, logit_scale, *d_student));
      part.add(weight.value(), first, students);
    }
    part.finish();
  }
  return {record_head_loss("linear_kl", x, weight, losses, std::move(gradients)), losses};
}

}  // namespace lh
