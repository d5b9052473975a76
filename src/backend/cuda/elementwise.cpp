// Elementwise maps: checks, then one launch each.
#include "backend/elementwise.h"

#include <bit>

#include "backend/cuda/kernel_call.h"
#include "kernels/elementwise/bias.h"
#include "kernels/elementwise/copy.h"
#include "kernels/elementwise/gates.h"
#include "kernels/elementwise/linear.h"

namespace lh::cuda {
namespace {

kernels::ElementType element_type(DType dtype) {
  switch (dtype) {
    case DType::kF32: return kernels::ElementType::kF32;
    case DType::kBF16: return kernels::ElementType::kBF16;
    case DType::kF64: return kernels::ElementType::kF64;
    case DType::kI32: return kernels::ElementType::kI32;
    case DType::kI64: return kernels::ElementType::kI64;
    case DType::kU8: return kernels::ElementType::kU8;
  }
  return kernels::ElementType::kF32;
}

uint64_t pattern(DType dtype, double value) {
  switch (dtype) {
    case DType::kF32: return std::bit_cast<uint32_t>(static_cast<float>(value));
    case DType::kBF16: return bf16(static_cast<float>(value)).bits;
    case DType::kF64: return std::bit_cast<uint64_t>(value);
    case DType::kI32: return static_cast<uint32_t>(static_cast<int32_t>(value));
    case DType::kI64: return static_cast<uint64_t>(static_cast<int64_t>(value));
    case DType::kU8: return static_cast<uint8_t>(value);
  }
  return 0;
}

void check_flat(const Tensor& t, const Tensor& like, std::string_view op, std::string_view name) {
  check_like(t, like, op, name);
  check_contiguous(t, op, name);
}

/// [rows, cols] of an operand whose last dimension is contiguous; all of it when it is contiguous.
RowView gate_rows(const Tensor& t, std::string_view op) {
  if (t.is_contiguous()) return {1, t.numel(), t.numel()};
  return row_view(t, t.rank() - 1, op, "operand");
}

/// Fills strides so that all operands have one shape of rows.
template <typename Params>
void set_rows(Params& p, std::initializer_list<std::pair<const Tensor*, int64_t*>> operands,
              std::string_view op) {
  bool flat = true;
  for (const auto& [tensor, stride] : operands) flat &= tensor->is_contiguous();
  for (const auto& [tensor, stride] : operands) {
    const RowView view = flat ? gate_rows(*tensor, op)
                              : row_view(*tensor, tensor->rank() - 1, op, "operand");
    p.rows = view.rows;
    p.cols = view.cols;
    *stride = view.stride;
  }
}

}  // namespace

void copy(const Tensor& src, Tensor& dst) {
  check_shape(dst, src.shape(), "copy", "dst");
  if (src.numel() == 0) return;
  const std::vector<CopyDim> dims = merged_copy_dims(src, dst);
  kernels::CopyParams p;
  if (dims.size() > static_cast<size_t>(kernels::CopyParams::kMaxRank))
    fail<ShapeError>("[copy] more than {} separate dimensions: {} to {}",
                     kernels::CopyParams::kMaxRank, src.str(), dst.str());
  p.src = src.raw();
  p.dst = dst.raw();
  p.from = element_type(src.dtype());
  p.to = element_type(dst.dtype());
  p.rank = static_cast<int>(dims.size());
  for (size_t i = 0; i < dims.size(); ++i) {
    p.size[i] = dims[i].size;
    p.src_stride[i] = dims[i].src;
    p.dst_stride[i] = dims[i].dst;
  }
  call("copy", {&src, &dst}, [&](gpu::Stream stream) { kernels::copy(p, stream); });
}

void fill(Tensor& dst, double value) {
  check_contiguous(dst, "fill", "dst");
  call("fill", {&dst}, [&](gpu::Stream stream) {
    kernels::fill(dst.raw(), pattern(dst.dtype(), value), static_cast<int>(dtype_size(dst.dtype())),
                  dst.numel(), stream);
  });
}

void add_scaled(const Tensor& a, double alpha, const Tensor& b, double beta, Tensor& out) {
  check_flat(a, out, "add_scaled", "a");
  check_flat(b, out, "add_scaled", "b");
  check_contiguous(out, "add_scaled", "out");
  dispatch_kernel(out.dtype(), "add_scaled", [&]<typename T>() {
    call("add_scaled", {&a, &b, &out}, [&](gpu::Stream stream) {
      kernels::add_scaled<kernel_t<T>>(pointer<T>(a), static_cast<float>(alpha), pointer<T>(b),
                                       static_cast<float>(beta), pointer<T>(out), out.numel(),
                                       stream);
    });
  });
}

void scale(const Tensor& a, double alpha, Tensor& out) {
  check_flat(a, out, "scale", "a");
  check_contiguous(out, "scale", "out");
  dispatch_kernel(out.dtype(), "scale", [&]<typename T>() {
    call("scale", {&a, &out}, [&](gpu::Stream stream) {
      kernels::scale<kernel_t<T>>(pointer<T>(a), static_cast<float>(alpha), pointer<T>(out),
                                  out.numel(), stream);
    });
  });
}

void scale_by(const Tensor& a, const Tensor& alpha, Tensor& out, bool accumulate) {
  check_shape(alpha, {1}, "scale_by", "alpha");
  check_flat(a, out, "scale_by", "a");
  check_contiguous(out, "scale_by", "out");
  dispatch_kernel(out.dtype(), "scale_by", [&]<typename T>() {
    call("scale_by", {&a, &alpha, &out}, [&](gpu::Stream stream) {
      kernels::scale_by<kernel_t<T>>(pointer<T>(a), pointer<float>(alpha), accumulate,
                                     pointer<T>(out), out.numel(), stream);
    });
  });
}

void multiply(const Tensor& a, const Tensor& b, Tensor& out) {
  check_flat(a, out, "multiply", "a");
  check_flat(b, out, "multiply", "b");
  check_contiguous(out, "multiply", "out");
  dispatch_kernel(out.dtype(), "multiply", [&]<typename T>() {
    call("multiply", {&a, &b, &out}, [&](gpu::Stream stream) {
      kernels::multiply<kernel_t<T>>(pointer<T>(a), pointer<T>(b), pointer<T>(out), out.numel(),
                                     stream);
    });
  });
}

void add_bias(Tensor& x, const Tensor& bias) {
  check_rank(x, 2, "add_bias", "x");
  check_shape(bias, {x.size(1)}, "add_bias", "bias");
  check_dtype(bias, x.dtype(), "add_bias", "bias");
  check_contiguous(bias, "add_bias", "bias");
  const RowView view = row_view(x, 1, "add_bias", "x");
  dispatch_kernel(x.dtype(), "add_bias", [&]<typename T>() {
    call("add_bias", {&x, &bias}, [&](gpu::Stream stream) {
      kernels::bias_add<kernel_t<T>>(pointer<T>(x), view.stride, pointer<T>(bias), view.rows,
                                     view.cols, stream);
    });
  });
}

void bias_backward(const Tensor& dy, Tensor& d_bias) {
  check_rank(dy, 2, "bias_backward", "dy");
  check_sum(d_bias, {dy.size(1)}, dy.dtype(), "bias_backward", "d_bias");
  const RowView view = row_view(dy, 1, "bias_backward", "dy");
  const Tensor parts = workspace(
      kernels::bias_bwd_workspace(view.rows, view.cols) * sizeof(float), dy.device());
  dispatch_kernel(dy.dtype(), "bias_backward", [&]<typename T>() {
    call("bias_backward", {&dy, &d_bias}, [&](gpu::Stream stream) {
      kernels::bias_bwd<kernel_t<T>>(pointer<T>(dy), view.stride, pointer<float>(d_bias),
                                     reinterpret_cast<float*>(parts.raw()), view.rows, view.cols,
                                     stream);
    });
  });
}

void swiglu_forward(const Tensor& gate, const Tensor& up, Tensor& y) {
  check_like(gate, y, "swiglu", "gate");
  check_like(up, y, "swiglu", "up");
  dispatch_kernel(y.dtype(), "swiglu", [&]<typename T>() {
    kernels::GateParams<kernel_t<T>> p;
    p.gate = pointer<T>(gate);
    p.x = pointer<T>(up);
    p.y = pointer<T>(y);
    set_rows(p, {{&gate, &p.gate_stride}, {&up, &p.x_stride}, {&y, &p.y_stride}}, "swiglu");
    call("swiglu", {&gate, &up, &y}, [&](gpu::Stream stream) { kernels::swiglu_fwd(p, stream); });
  });
}

void sigmoid_gate_forward(const Tensor& x, const Tensor& gate, Tensor& y) {
  check_like(x, y, "sigmoid_gate", "x");
  check_like(gate, y, "sigmoid_gate", "gate");
  dispatch_kernel(y.dtype(), "sigmoid_gate", [&]<typename T>() {
    kernels::GateParams<kernel_t<T>> p;
    p.gate = pointer<T>(gate);
    p.x = pointer<T>(x);
    p.y = pointer<T>(y);
    set_rows(p, {{&gate, &p.gate_stride}, {&x, &p.x_stride}, {&y, &p.y_stride}}, "sigmoid_gate");
    call("sigmoid_gate", {&x, &gate, &y},
         [&](gpu::Stream stream) { kernels::sigmoid_gate_fwd(p, stream); });
  });
}

namespace {

/// Both gates have the same operands backward; `launch` is the kernel.
template <typename Launch>
void gate_backward(const Tensor& x, const Tensor& gate, const Tensor& dy, Tensor& dx,
                   Tensor& d_gate, std::string_view op, Launch&& launch) {
  check_like(x, dy, op, "x");
  check_like(gate, dy, op, "gate");
  check_like(dx, dy, op, "dx");
  check_like(d_gate, dy, op, "d_gate");
  dispatch_kernel(dy.dtype(), op, [&]<typename T>() {
    kernels::GateParams<kernel_t<T>> p;
    p.gate = pointer<T>(gate);
    p.x = pointer<T>(x);
    p.dy = pointer<T>(dy);
    p.dx = pointer<T>(dx);
    p.d_gate = pointer<T>(d_gate);
    set_rows(p,
             {{&gate, &p.gate_stride},
              {&x, &p.x_stride},
              {&dy, &p.dy_stride},
              {&dx, &p.dx_stride},
              {&d_gate, &p.d_gate_stride}},
             op);
    call(op, {&x, &gate, &dy, &dx, &d_gate}, [&](gpu::Stream stream) { launch(p, stream); });
  });
}

}  // namespace

void swiglu_backward(const Tensor& gate, const Tensor& up, const Tensor& dy, Tensor& d_gate,
                     Tensor& d_up) {
  gate_backward(up, gate, dy, d_up, d_gate, "swiglu_backward",
                [](const auto& p, gpu::Stream stream) { kernels::swiglu_bwd(p, stream); });
}

void sigmoid_gate_backward(const Tensor& x, const Tensor& gate, const Tensor& dy, Tensor& dx,
                           Tensor& d_gate) {
  gate_backward(x, gate, dy, dx, d_gate, "sigmoid_gate_backward",
                [](const auto& p, gpu::Stream stream) { kernels::sigmoid_gate_bwd(p, stream); });
}

}  // namespace lh::cuda
