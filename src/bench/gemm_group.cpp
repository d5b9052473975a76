// The products of a decoder's training step, with and without the fused bias, and the linear
// cross-entropy, against a large square product.
#include "backend/elementwise.h"
#include "backend/matmul.h"
#include "bench/yardstick.h"
#include "ops/linear_cross_entropy.h"

namespace lh::bench {
namespace {

/// A linear layer y [tokens, out] = x [tokens, in] w[out, in]^T: its three products.
void layer(const Setup& setup, const Yardstick& peak, int64_t tokens, int64_t in, int64_t out,
           Report& report) {
  const Device device = setup.device;
  const Tensor x = random_tensor({tokens, in}, setup.dtype, device, 1);
  const Tensor w = random_tensor({out, in}, setup.dtype, device, 2);
  const Tensor dy = random_tensor({tokens, out}, setup.dtype, device, 3);
  const Tensor bias = random_tensor({out}, setup.dtype, device, 4);
  Tensor y = Tensor::empty_like(dy), dx = Tensor::empty_like(x);
  Tensor dw = Tensor::zeros(w.shape(), DType::kF32, device);
  Tensor db = Tensor::zeros({out}, DType::kF32, device);
  const auto add = [&](const char* name, const std::function<void()>& run) {
    Row row{.group = "gemm", .name = name, .shape = fmt::format("{}x{}x{}", tokens, out, in),
            .dtype = dtype_name(setup.dtype)};
    row.flops = 2.0 * static_cast<double>(tokens) * static_cast<double>(in) *
                static_cast<double>(out);
    add_against(peak, run, setup, std::move(row), report);
  };
  add("forward", [&] { LH_DISPATCH(device, "bench", gemm(x, false, w, true, y, false)); });
  add("forward + bias",
      [&] { LH_DISPATCH(device, "bench", gemm(x, false, w, true, y, false, bias)); });
  add("input gradient",
      [&] { LH_DISPATCH(device, "bench", gemm(dy, false, w, false, dx, false)); });
  add("weight gradient, added",
      [&] { LH_DISPATCH(device, "bench", gemm(dy, true, x, false, dw, true)); });
  add("weight + bias gradient",
      [&] { LH_DISPATCH(device, "bench", gemm_bias_backward(dy, x, dw, true, db)); });
}

void head(const Setup& setup, const Yardstick& peak, Report& report) {
  const Device device = setup.device;
  const int64_t tokens = setup.pick(16, 512, 16384), vocab = setup.pick(64, 8192, 50304);
  const int64_t d = setup.pick(32, 512, 1024);
  const Tensor x = random_tensor({tokens, d}, setup.dtype, device, 1);
  const Tensor w = random_tensor({vocab, d}, setup.dtype, device, 2);
  const Tensor targets = random_ids(tokens, vocab, device);
  const Variable vx = Variable::leaf(x), vw = Variable::leaf(w);  // so that gradients are made
  Row row{.group = "gemm", .name = "linear_cross_entropy",
          .shape = fmt::format("{}x{}x{}", tokens, vocab, d), .dtype = dtype_name(setup.dtype)};
  row.flops = 6.0 * static_cast<double>(tokens) * static_cast<double>(d) *
              static_cast<double>(vocab);  // logits, dx, dw
  add_against(
      peak, [&] { linear_cross_entropy(vx, vw, targets); }, setup, std::move(row), report);
}

}  // namespace

void bench_gemm(const Setup& setup, Report& report) {
  const Yardstick peak = product_yardstick(setup);
  Row row{.group = "gemm", .name = "square", .shape = peak.name, .dtype = dtype_name(setup.dtype)};
  row.flops = peak.work;
  add_against(peak, peak.run, setup, std::move(row), report);  // a ratio of 1 within the noise
  const int64_t tokens = setup.pick(32, 512, 32768);
  if (setup.scale == Scale::kToy) {
    layer(setup, peak, tokens, 32, 64, report);
  } else {
    layer(setup, peak, tokens, 768, 2048, report);   // 124M: MLP
    layer(setup, peak, tokens, 1024, 3072, report);  // 0.6B: MLP
    if (setup.scale == Scale::kFull) layer(setup, peak, tokens, 4096, 4096, report);
  }
  head(setup, peak, report);
}

}  // namespace lh::bench
