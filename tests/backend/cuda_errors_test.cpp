// What the CUDA backend does not support is refused before anything runs, by a message with the operation and
// what it got: every operand of every operation with another dtype, shape, stride and device.
#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "backend/attention.h"
#include "backend/elementwise.h"
#include "backend/embedding.h"
#include "backend/loss.h"
#include "backend/matmul.h"
#include "backend/norm.h"
#include "backend/parallax.h"
#include "backend/reduce.h"
#include "backend/rope.h"
#include "runtime/gpu.h"
#include "tensor/tensor.h"

namespace {

using namespace lh;

constexpr Device kGpu{DeviceKind::kCuda, 0};

bool no_device() {
  if (gpu::device_count() > 0) return false;
  MESSAGE("SKIPPED: no CUDA device (" << gpu::unavailable_reason() << ")");
  return true;
}

Tensor f32(const Shape& shape) {
  return Tensor::zeros(shape, DType::kF32, kGpu);
}
Tensor of(const Shape& shape, DType dtype) {
  return Tensor::zeros(shape, dtype, kGpu);
}

struct Operation {
  const char* name;  // as messages say it
  std::vector<Tensor> operands;
  std::function<void(std::vector<Tensor>&)> run;
  std::vector<size_t> any_stride = {};  // operands whose rows may lie apart
  std::vector<size_t> any_rows = {};    // operands whose first dimension is free
  std::vector<size_t> any_dtype = {};
  size_t any_rank = SIZE_MAX;  // the operand that may have any shape
  size_t any_view = SIZE_MAX;  // the operand that is copied when it is not as wanted
};

bool contains(const std::vector<size_t>& list, size_t i) {
  return std::find(list.begin(), list.end(), i) != list.end();
}

/// The message of a refusal; "" when there was none.
std::string refusal(const Operation& operation, size_t i, const Tensor& instead) {
  std::vector<Tensor> operands = operation.operands;
  operands[i] = instead;
  try {
    operation.run(operands);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

void check_refusal(const Operation& operation, size_t i, const Tensor& instead, const char* what) {
  const std::string message = refusal(operation, i, instead);
  CAPTURE(std::string(operation.name));
  CAPTURE(i);
  CAPTURE(std::string(what));
  CAPTURE(message);
  CHECK(message.find(std::string("[") + operation.name) == 0);
  CHECK(message.find("expected") != std::string::npos);
  CHECK(message.find("got") != std::string::npos);
}

std::vector<Operation> operations() {
  AttentionPlan plan;
  plan.segments = {{0, 6, 0, 6, 0}};
  const auto ids = [] { return of({6}, DType::kI32); };
  const VocabularyChunk chunk{0, 16};
  return {
      {"fill", {f32({4, 8})}, [](auto& t) { cuda::fill(t[0], 1); }, {}, {0}, {0}},
      {"add_scaled", {f32({4, 8}), f32({4, 8}), f32({4, 8})},
       [](auto& t) { cuda::add_scaled(t[0], 1, t[1], 1, t[2]); }},
      {"scale", {f32({4, 8}), f32({4, 8})}, [](auto& t) { cuda::scale(t[0], 2, t[1]); }},
      {"scale_by", {f32({4, 8}), f32({1}), f32({4, 8})},
       [](auto& t) { cuda::scale_by(t[0], t[1], t[2], false); }},
      {"multiply", {f32({4, 8}), f32({4, 8}), f32({4, 8})},
       [](auto& t) { cuda::multiply(t[0], t[1], t[2]); }},
      {"add_bias", {f32({4, 8}), f32({8})}, [](auto& t) { cuda::add_bias(t[0], t[1]); }, {0}, {0}},
      {"bias_backward", {f32({4, 8}), f32({8})},
       [](auto& t) { cuda::bias_backward(t[0], t[1]); }, {0}, {0}},
      {"swiglu", {f32({4, 8}), f32({4, 8}), f32({4, 8})},
       [](auto& t) { cuda::swiglu_forward(t[0], t[1], t[2]); }, {0, 1, 2}},
      {"swiglu_backward", {f32({4, 8}), f32({4, 8}), f32({4, 8}), f32({4, 8}), f32({4, 8})},
       [](auto& t) { cuda::swiglu_backward(t[0], t[1], t[2], t[3], t[4]); }, {0, 1, 2, 3, 4}},
      {"sigmoid_gate", {f32({4, 8}), f32({4, 8}), f32({4, 8})},
       [](auto& t) { cuda::sigmoid_gate_forward(t[0], t[1], t[2]); }, {0, 1, 2}},
      {"embedding", {f32({16, 8}), ids(), f32({6, 8})},
       [](auto& t) { cuda::embedding_forward(t[0], t[1], 1, t[2]); }, {}, {0}},
      {"embedding_backward", {ids(), f32({6, 8}), f32({16, 8})},
       [](auto& t) { cuda::embedding_backward(t[0], t[1], 1, t[2]); }, {}, {2}},
      {"cross_entropy", {f32({6, 16}), ids(), f32({6}), f32({6, 16})},
       [](auto& t) { cuda::cross_entropy(t[0], t[1], 1, t[2], &t[3]); }},
      {"softmax_statistics", {f32({6, 16}), ids(), f32({3, 6})},
       [chunk](auto& t) { cuda::softmax_statistics(t[0], chunk, t[1], 1, t[2]); }},
      {"cross_entropy_losses", {f32({3, 6}), ids(), f32({6})},
       [](auto& t) { cuda::cross_entropy_losses(t[0], t[1], t[2]); }},
      {"cross_entropy_gradient", {f32({6, 16}), ids(), f32({3, 6}), f32({6, 16})},
       [chunk](auto& t) { cuda::cross_entropy_gradient(t[0], chunk, t[1], 1, t[2], t[3]); }},
      {"kl_divergence",
       {f32({6, 16}), f32({6, 16}), ids(), f32({3, 6}), f32({3, 6}), f32({6}), f32({6, 16})},
       [chunk](auto& t) {
         cuda::kl_divergence(t[0], t[1], chunk, t[2], 1, t[3], t[4], t[5], &t[6]);
       }},
      {"gemm", {f32({4, 8}), f32({5, 8}), f32({4, 5})},
       [](auto& t) { cuda::gemm(t[0], false, t[1], true, t[2], false); }, {0, 1, 2}},
      {"gemv", {f32({2, 8}), f32({5, 8}), f32({2, 5})},
       [](auto& t) { cuda::gemv(t[0], t[1], t[2]); }, {0, 1}, {}, {}, SIZE_MAX, 0},
      {"rms_norm", {f32({4, 8}), f32({8}), f32({4, 8}), f32({4})},
       [](auto& t) { cuda::rms_norm_forward(t[0], t[1], 1e-5, t[2], t[3]); }, {1}, {}, {1}},
      {"rms_norm_backward", {f32({4, 8}), f32({8}), f32({4}), f32({4, 8}), f32({4, 8}), f32({8})},
       [](auto& t) { cuda::rms_norm_backward(t[0], t[1], t[2], t[3], t[4], false, t[5]); }, {1}, {},
       {1}},
      {"rope", {f32({6, 2, 8}), f32({16, 8}), ids(), f32({6, 2, 8})},
       [](auto& t) { cuda::rope(t[0], t[1], t[2], false, t[3]); }, {0, 3}, {1}},
      {"sum_of_squares", {f32({4, 8}), of({1}, DType::kF64)},
       [](auto& t) { cuda::sum_of_squares(t[0], t[1], false); }, {}, {0}, {}, 0},
      {"inverse_norm", {of({1}, DType::kF64), f32({1})},
       [](auto& t) { cuda::inverse_norm(t[0], 0, t[1]); }},
      {"count_non_finite", {f32({4, 8}), of({1}, DType::kI64)},
       [](auto& t) { cuda::count_non_finite(t[0], t[1]); }, {}, {0}, {}, 0},
      {"attention",
       {f32({6, 4, 16}), f32({6, 2, 16}), f32({6, 2, 16}), f32({6, 4, 16}), f32({6, 4})},
       [plan](auto& t) { cuda::attention_forward(t[0], t[1], t[2], plan, t[3], t[4]); },
       {0, 1, 2, 3}},
      {"attention_backward",
       {f32({6, 4, 16}), f32({6, 2, 16}), f32({6, 2, 16}), f32({6, 4, 16}), f32({6, 4}),
        f32({6, 4, 16}), f32({6, 4, 16}), f32({6, 2, 16}), f32({6, 2, 16})},
       [plan](auto& t) {
         cuda::attention_backward(t[0], t[1], t[2], t[3], t[4], t[5], plan, t[6], t[7], t[8]);
       },
       {0, 1, 2, 3, 5, 6, 7, 8}},
      {"parallax",
       {f32({6, 4, 16}), f32({6, 4, 16}), f32({6, 2, 16}), f32({6, 2, 16}), f32({6, 4, 16}),
        f32({6, 4, 16}), f32({6, 4}), f32({6, 4})},
       [plan](auto& t) {
         ParallaxResult result{t[4], t[5], t[6], t[7]};
         cuda::parallax_forward({t[0], t[1], t[2], t[3]}, plan, result);
       },
       {0, 1, 2, 3, 4, 5}},
      {"parallax_backward",
       {f32({6, 4, 16}), f32({6, 4, 16}), f32({6, 2, 16}), f32({6, 2, 16}), f32({6, 4, 16}),
        f32({6, 4, 16}), f32({6, 4}), f32({6, 4}), f32({6, 4, 16}), f32({6, 4, 16}),
        f32({6, 4, 16}), f32({6, 2, 16}), f32({6, 2, 16})},
       [plan](auto& t) {
         ParallaxGradients gradients{t[9], t[10], t[11], t[12]};
         cuda::parallax_backward({t[0], t[1], t[2], t[3]}, {t[4], t[5], t[6], t[7]}, t[8], plan,
                                 gradients);
       },
       {0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12}},
  };
}

}  // namespace

TEST_CASE("every operand of another dtype is refused") {
  if (no_device()) return;
  for (const Operation& operation : operations())
    for (size_t i = 0; i < operation.operands.size(); ++i) {
      if (contains(operation.any_dtype, i)) continue;
      const Tensor& good = operation.operands[i];
      const DType other = good.dtype() == DType::kU8 ? DType::kF32 : DType::kU8;
      check_refusal(operation, i, of(good.shape(), other), "dtype");
    }
}

TEST_CASE("every operand of another shape is refused") {
  if (no_device()) return;
  for (const Operation& operation : operations())
    for (size_t i = 0; i < operation.operands.size(); ++i) {
      const Tensor& good = operation.operands[i];
      Shape longer = good.shape();
      longer[0] += 1;
      if (!contains(operation.any_rows, i) && operation.operands.size() > 1)
        check_refusal(operation, i, of(longer, good.dtype()), "rows");
      if (operation.any_rank != i && operation.operands.size() > 1 && good.numel() != 1)
        check_refusal(operation, i, of({2, 1, 1, 1, 3}, good.dtype()), "rank");
    }
}

TEST_CASE("operands whose elements do not lie as a kernel reads them are refused") {
  if (no_device()) return;
  for (const Operation& operation : operations())
    for (size_t i = 0; i < operation.operands.size(); ++i) {
      const Tensor& good = operation.operands[i];
      if (good.numel() == 1 || contains(operation.any_dtype, i)) continue;
      Shape pairs = good.shape();
      pairs[-1] *= 2;
      const Tensor wide = of(pairs, good.dtype());
      if (good.rank() > 1 && !contains(operation.any_stride, i))
        check_refusal(operation, i, wide.slice(-1, 0, good.size(-1)), "stride");
      // Rows that the transpose of a tensor has lie inside out for every kernel.
      if (operation.any_view != i && good.rank() > 1 && good.size(-1) > 1 && good.size(-2) > 1) {
        Shape swapped = good.shape();
        std::swap(swapped[-1], swapped[-2]);
        check_refusal(operation, i, of(swapped, good.dtype()).transpose(-1, -2), "transposed");
      }
    }
}

TEST_CASE("operands on another device are refused, and the message says which is where") {
  if (no_device()) return;
  for (const Operation& operation : operations())
    for (size_t i = 0; i < operation.operands.size() && operation.operands.size() > 1; ++i) {
      const Tensor elsewhere =
          Tensor::zeros(operation.operands[i].shape(), operation.operands[i].dtype());
      const std::string message = refusal(operation, i, elsewhere);
      CAPTURE(std::string(operation.name));
      CAPTURE(i);
      CAPTURE(message);
      CHECK(message.find(std::string("[") + operation.name) == 0);
      CHECK(message.find("on cpu") != std::string::npos);
      CHECK(message.find("on cuda:0") != std::string::npos);
    }
}
