// Kernels limited by memory at the sizes of a training step. Bytes are what must move: every input
// read once, every output written once.
#include <algorithm>
#include <unordered_set>

#include "backend/elementwise.h"
#include "backend/embedding.h"
#include "backend/matmul.h"
#include "backend/norm.h"
#include "backend/optim.h"
#include "backend/reduce.h"
#include "backend/rope.h"
#include "bench/yardstick.h"

namespace lh::bench {
namespace {

#define LH_RUN(call) [&]() mutable { LH_DISPATCH(setup.device, "bench", call); }

class Cases {
 public:
  Cases(const Setup& setup, Report& report)
      : setup_(setup), report_(report), copy_(copy_yardstick(setup)) {}

  /// `moved`: each tensor once for every time it is read or written.
  void add(const char* name, const std::string& shape, DType dtype,
           std::initializer_list<const Tensor*> moved, const std::function<void()>& run) {
    double bytes = 0;
    for (const Tensor* t : moved) bytes += static_cast<double>(t->bytes());
    add(name, shape, dtype, bytes, run);
  }
  void add(const char* name, const std::string& shape, DType dtype, double bytes,
           const std::function<void()>& run) {
    Row row{.group = "memory", .name = name, .shape = shape, .dtype = dtype_name(dtype)};
    row.bytes = bytes;
    add_against(copy_, run, setup_, std::move(row), report_);
  }

 private:
  const Setup& setup_;
  Report& report_;
  Yardstick copy_;
};

std::string shape_text(const Tensor& t) {
  std::string text = fmt::format("{}", t.size(0));
  for (int i = 1; i < t.rank(); ++i) text += fmt::format("x{}", t.size(i));
  return text;
}

/// Activations [rows, d].
void elementwise(const Setup& setup, Cases& cases) {
  const DType dtype = setup.dtype;
  const int64_t rows = setup.pick(16, 2048, 16384), d = setup.pick(64, 1024, 4096);
  const Tensor a = random_tensor({rows, d}, dtype, setup.device, 1);
  const Tensor b = random_tensor({rows, d}, dtype, setup.device, 2);
  const Tensor dy = random_tensor({rows, d}, dtype, setup.device, 3);
  const Tensor bias = random_tensor({d}, dtype, setup.device, 4);
  const Tensor one = random_tensor({1}, DType::kF32, setup.device, 5);
  Tensor out = Tensor::empty_like(a), out2 = Tensor::empty_like(a);
  Tensor wide = Tensor::empty(a.shape(), DType::kF32, setup.device);
  Tensor turned = Tensor::empty({d, rows}, dtype, setup.device);
  Tensor sums = Tensor::zeros({d}, DType::kF32, setup.device);
  const std::string shape = shape_text(a);
  cases.add("copy to f32", shape, dtype, {&a, &wide}, LH_RUN(copy(a, wide)));
  cases.add("copy transposed", shape, dtype, {&a, &turned},
            LH_RUN(copy(a.transpose(0, 1), turned)));
  cases.add("add_scaled", shape, dtype, {&a, &b, &out}, LH_RUN(add_scaled(a, 1, b, 0.5, out)));
  cases.add("scale", shape, dtype, {&a, &out}, LH_RUN(scale(a, 0.5, out)));
  cases.add("scale_by", shape, dtype, {&a, &out}, LH_RUN(scale_by(a, one, out, false)));
  cases.add("multiply", shape, dtype, {&a, &b, &out}, LH_RUN(multiply(a, b, out)));
  LH_DISPATCH(setup.device, "bench", fill(out, 0));
  cases.add("add_bias", shape, dtype, {&out, &out}, LH_RUN(add_bias(out, bias)));
  cases.add("bias_backward", shape, dtype, {&dy}, LH_RUN(bias_backward(dy, sums)));
  cases.add("swiglu_forward", shape, dtype, {&a, &b, &out}, LH_RUN(swiglu_forward(a, b, out)));
  cases.add("swiglu_backward", shape, dtype, {&a, &b, &dy, &out, &out2},
            LH_RUN(swiglu_backward(a, b, dy, out, out2)));
  cases.add("sigmoid_gate_forward", shape, dtype, {&a, &b, &out},
            LH_RUN(sigmoid_gate_forward(a, b, out)));
  cases.add("sigmoid_gate_backward", shape, dtype, {&a, &b, &dy, &out, &out2},
            LH_RUN(sigmoid_gate_backward(a, b, dy, out, out2)));
}

void norms(const Setup& setup, Cases& cases) {
  const DType dtype = setup.dtype;
  const int64_t tokens = setup.pick(16, 2048, 16384), heads = setup.pick(2, 8, 32), d = 128;
  // Of the residual stream, and of every head (QK-norm).
  for (const Shape& shape : {Shape{tokens, heads * d}, Shape{tokens * heads, d}}) {
    const Tensor x = random_tensor(shape, dtype, setup.device, 1);
    const Tensor dy = random_tensor(shape, dtype, setup.device, 2);
    const Tensor weight = random_tensor({shape[1]}, dtype, setup.device, 3);
    Tensor y = Tensor::empty_like(x), rstd = Tensor::empty({shape[0]}, DType::kF32, setup.device);
    Tensor d_weight = Tensor::zeros({shape[1]}, DType::kF32, setup.device);
    cases.add("rms_norm_forward", shape_text(x), dtype, {&x, &y, &rstd},
              LH_RUN(rms_norm_forward(x, weight, 1e-5, y, rstd)));
    cases.add("rms_norm_backward", shape_text(x), dtype, {&x, &dy, &y, &rstd},
              LH_RUN(rms_norm_backward(x, weight, rstd, dy, y, false, d_weight)));
  }
  const Tensor x = random_tensor({tokens, heads, d}, dtype, setup.device, 4);
  const Tensor table = random_tensor({tokens, d}, DType::kF32, setup.device, 5);
  const Tensor positions = random_ids(tokens, tokens, setup.device);
  Tensor y = Tensor::empty_like(x);
  cases.add("rope", shape_text(x), dtype, {&x, &y}, LH_RUN(rope(x, table, positions, false, y)));
}

void embeddings(const Setup& setup, Cases& cases) {
  const DType dtype = setup.dtype;
  const int64_t tokens = setup.pick(16, 2048, 32768), vocab = setup.pick(64, 8192, 50304);
  const int64_t d = setup.pick(64, 512, 2048);
  const Tensor weight = random_tensor({vocab, d}, dtype, setup.device, 1);
  const Tensor ids = random_ids(tokens, vocab, setup.device);
  const Tensor host_ids = ids.to(kCpuDevice);
  const auto drawn = host_ids.span<int32_t>();
  const auto rows =
      static_cast<double>(std::unordered_set<int32_t>(drawn.begin(), drawn.end()).size());
  Tensor y = random_tensor({tokens, d}, dtype, setup.device, 2);
  Tensor d_weight = Tensor::zeros(weight.shape(), DType::kF32, setup.device);
  const auto row_bytes = static_cast<double>(d) * static_cast<double>(dtype_size(dtype));
  const auto y_bytes = static_cast<double>(y.bytes());
  const std::string shape = fmt::format("{}x{} of {}", tokens, d, vocab);
  cases.add("embedding_forward", shape, dtype, y_bytes + rows * row_bytes,
            LH_RUN(embedding_forward(weight, ids, 1, y)));
  cases.add("embedding_backward", shape, dtype, y_bytes + rows * 8 * static_cast<double>(d),
            LH_RUN(embedding_backward(ids, y, 1, d_weight)));
}

/// Parameters, their moments and gradients.
void updates(const Setup& setup, Cases& cases) {
  const int64_t count = setup.pick(4096, 1 << 21, 1 << 26);
  Tensor p = random_tensor({count}, DType::kF32, setup.device, 1);
  const Tensor g = random_tensor({count}, DType::kF32, setup.device, 2);
  Tensor m = Tensor::zeros({count}, DType::kF32, setup.device);
  Tensor v = Tensor::zeros({count}, DType::kF32, setup.device);
  Tensor copy16 = Tensor::empty({count}, DType::kBF16, setup.device);
  Tensor total = Tensor::zeros({1}, DType::kF64, setup.device);
  Tensor bad = Tensor::zeros({1}, DType::kI64, setup.device);
  // As a model has them: many tensors, most of them small.
  AdamWList list;
  TensorList gradients;
  for (int64_t begin = 0, size = count / 2; begin < count; begin += size) {
    if (begin > 0) size = std::min(std::max<int64_t>(size / 2, 256), count - begin);
    const auto cut = [&](const Tensor& t) { return t.slice(0, begin, begin + size); };
    list.operands.push_back({.parameter = cut(p), .gradient = cut(g), .m = cut(m), .v = cut(v),
                             .compute = cut(copy16), .weight_decay = 0.1});
    gradients.tensors.push_back(cut(g));
  }
  const AdamWSettings settings{.learning_rate = 1e-3, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8};
  const std::vector<double> step_scalars = {1, 1, 1, 0.6, 1.6};  // kGradScale ... of step 10
  const Tensor scalars = Tensor::from(step_scalars, {kStepScalars}).to(setup.device);
  const std::string shape = shape_text(p);
  const DType f32 = DType::kF32;
  cases.add("adamw_step", shape, f32, {&p, &p, &g, &m, &m, &v, &v, &copy16},
            LH_RUN(adamw_step(list, settings, scalars)));
  cases.add("apply_update", shape, f32, {&p, &p, &g, &copy16},
            LH_RUN(apply_update(p, g, 1e-3, 1, 0.1, scalars, &copy16)));
  cases.add("sum_of_squares", shape, f32, {&g}, LH_RUN(sum_of_squares(gradients, total)));
  cases.add("sum", shape, f32, {&g}, LH_RUN(sum(g, total, false)));
  cases.add("count_non_finite", shape, f32, {&g}, LH_RUN(count_non_finite(g, bad)));
}

/// The products of decoding, which read every weight once.
void few_rows(const Setup& setup, Cases& cases) {
  const int64_t n = setup.pick(64, 2048, 12288), k = setup.pick(64, 1024, 4096);
  const Tensor w = random_tensor({n, k}, setup.dtype, setup.device, 1);
  for (const int64_t rows : {1, 8}) {
    const Tensor x = random_tensor({rows, k}, setup.dtype, setup.device, 2);
    Tensor y = Tensor::empty({rows, n}, setup.dtype, setup.device);
    cases.add("gemv", fmt::format("{} rows {}x{}", rows, n, k), setup.dtype, {&w, &x, &y},
              LH_RUN(gemv(x, w, y)));
  }
}

}  // namespace

void bench_memory(const Setup& setup, Report& report) {
  Cases cases(setup, report);
  elementwise(setup, cases);
  norms(setup, cases);
  embeddings(setup, cases);
  updates(setup, cases);
  few_rows(setup, cases);
}

}  // namespace lh::bench
