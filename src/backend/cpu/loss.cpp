// Losses over rows of logits, row by row.
#include "backend/loss.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "backend/cpu/lanes.h"
#include "backend/cpu/simd/elementwise.h"
#include "backend/cpu/simd/loss.h"
#include "backend/loss_operands.h"

namespace lh::cpu {
namespace {

void check_targets(const Tensor& targets, int64_t vocab, std::string_view op) {
  const int32_t* target = targets.data<int32_t>();
  for (int64_t r = 0; r < targets.size(0); ++r)
    if (target[r] < -1 || target[r] >= vocab)
      fail<ShapeError>("[{}] target {} at row {} is outside the vocabulary of {}", op, target[r], r,
                       vocab);
}

/// Calls function.template operator()<S>() for the dtype of logits.
template <typename F>
void dispatch_logits(const Tensor& logits, F&& function) {
  if (logits.dtype() == DType::kF64) function.template operator()<double>();
  else function.template operator()<float>();
}

/// Writes alpha * row to row r of `out`, in its dtype; the row is scratch and may be that of out.
template <typename S>
void write_gradient(S* row, S alpha, Tensor& out, int64_t r, int64_t columns) {
  if (out.dtype() == DType::kBF16) {
    if constexpr (std::is_same_v<S, float>)
      LH_SIMD_CALL(scale_to_bf16(row, alpha, lanes<bf16>(out) + r * columns, columns));
  } else {
    LH_SIMD_CALL(scale(row, alpha, out.data<S>() + r * columns, columns));
  }
}

void zero_row(Tensor& out, int64_t r) {
  const size_t bytes = out.bytes() / static_cast<size_t>(out.size(0));
  std::fill_n(out.raw() + static_cast<size_t>(r) * bytes, bytes, char{0});
}

}  // namespace

void cross_entropy(Tensor& logits, const Tensor& targets, double logit_scale, Tensor& losses,
                   Tensor* d_logits) {
  check_logits(logits, {0, logits.size(1)}, targets, d_logits, "cross_entropy");
  check_sum(losses, {logits.size(0)}, logits.dtype(), "cross_entropy", "losses");
  const int64_t rows = logits.size(0), vocab = logits.size(1);
  check_targets(targets, vocab, "cross_entropy");
  const int32_t* target = targets.data<int32_t>();
  dispatch_logits(logits, [&]<typename S>() {
    const S stretch = static_cast<S>(logit_scale);
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; ++r) {
      S* z = logits.data<S>() + r * vocab;
      S& loss = losses.data<S>()[r];
      if (target[r] < 0) {
        loss = 0;
        if (d_logits != nullptr) zero_row(*d_logits, r);
        continue;
      }
      const S of_target = z[target[r]];
      S top;
      const S sum = LH_SIMD_CALL(softmax_numerators(z, vocab, stretch, &top));
      loss = std::log(sum) + stretch * (top - of_target);
      if (d_logits == nullptr) continue;
      // Before rounding: p - 1 of a nearly certain target is small.
      z[target[r]] -= sum;
      write_gradient(z, stretch / sum, *d_logits, r, vocab);
    }
  });
}

void softmax_statistics(const Tensor& logits, const VocabularyChunk& chunk, const Tensor& targets,
                        double logit_scale, Tensor& statistics) {
  check_logits(logits, chunk, targets, nullptr, "softmax_statistics");
  check_statistics(statistics, logits, "softmax_statistics");
  const int64_t rows = logits.size(0), columns = logits.size(1);
  if (targets.defined() && chunk.first == 0) check_targets(targets, chunk.vocab, "softmax_statistics");
  dispatch_logits(logits, [&]<typename S>() {
    const S stretch = static_cast<S>(logit_scale);
    S *tops = statistics.data<S>(), *sums = tops + rows, *of_targets = sums + rows;
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; ++r) {
      const S* z = logits.data<S>() + r * columns;
      S top = LH_SIMD_CALL(largest(z, columns, stretch));
      if (chunk.first > 0) top = std::max(top, tops[r]);
      const bool nothing = top == -std::numeric_limits<S>::infinity();
      S sum = nothing ? S{0} : LH_SIMD_CALL(exponential_sum(z, columns, stretch, top));
      // While only tokens that are ruled out were seen, -inf - -inf would be NaN.
      if (chunk.first > 0 && sums[r] != 0) sum += sums[r] * std::exp(tops[r] - top);
      tops[r] = top;
      sums[r] = sum;
      if (!targets.defined()) continue;
      const int64_t column = targets.data<int32_t>()[r] - chunk.first;
      if (column >= 0 && column < columns) of_targets[r] = stretch * z[column];
    }
  });
}

void cross_entropy_losses(const Tensor& statistics, const Tensor& targets, Tensor& losses) {
  check_loss_rows(statistics, targets, losses, "cross_entropy_losses");
  const int64_t rows = statistics.size(1);
  dispatch_logits(statistics, [&]<typename S>() {
    const S *tops = statistics.data<S>(), *sums = tops + rows, *of_targets = sums + rows;
    for (int64_t r = 0; r < rows; ++r)
      losses.data<S>()[r] = targets.data<int32_t>()[r] < 0
                                ? S{0}
                                : std::log(sums[r]) + (tops[r] - of_targets[r]);
  });
}

void cross_entropy_gradient(const Tensor& logits, const VocabularyChunk& chunk,
                            const Tensor& targets, double logit_scale, const Tensor& statistics,
                            Tensor& d_logits) {
  check_logits(logits, chunk, targets, &d_logits, "cross_entropy_gradient");
  check_statistics(statistics, logits, "cross_entropy_gradient");
  const int64_t rows = logits.size(0), columns = logits.size(1);
  dispatch_logits(logits, [&]<typename S>() {
    const S stretch = static_cast<S>(logit_scale);
    const S *tops = statistics.data<S>(), *sums = tops + rows;
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; ++r) {
      const int32_t target = targets.data<int32_t>()[r];
      if (target < 0) {
        zero_row(d_logits, r);
        continue;
      }
      S* z = logits.data<S>() + r * columns;  // of no use afterwards, so scratch
      LH_SIMD_CALL(exponentials(z, columns, stretch, tops[r], z));
      const int64_t column = target - chunk.first;
      if (column >= 0 && column < columns) z[column] -= sums[r];
      write_gradient(z, stretch / sums[r], d_logits, r, columns);
    }
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
  check_sum(losses, {student.size(0)}, student.dtype(), "kl_divergence", "losses");
  const int64_t rows = student.size(0), columns = student.size(1);
  dispatch_logits(student, [&]<typename S>() {
    const S inverse = static_cast<S>(1 / temperature), heat = static_cast<S>(temperature);
    const auto log_sum = [&](const Tensor& statistics, int64_t r) {
      const S* at = statistics.data<S>() + r;
      return at[0] + std::log(at[rows]);
    };
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; ++r) {
      S& loss = losses.data<S>()[r];
      if (chunk.first == 0) loss = 0;
      if (targets.data<int32_t>()[r] < 0) {
        if (d_student != nullptr) zero_row(*d_student, r);
        continue;
      }
      const S log_t = log_sum(teacher_statistics, r), log_s = log_sum(student_statistics, r);
      const S* t = teacher.data<S>() + r * columns;
      S* s = student.data<S>() + r * columns;
      loss += heat * heat *
              LH_SIMD_CALL(divergence_terms(t, s, columns, inverse, log_t, log_s));
      if (d_student != nullptr) write_gradient(s, heat, *d_student, r, columns);
    }
  });
}

}  // namespace lh::cpu
