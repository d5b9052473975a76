// Elementwise maps: rows are cut into blocks for OpenMP, blocks go to the simd kernels.
#include "backend/elementwise.h"

#include <algorithm>
#include <array>

#include "backend/cpu/lanes.h"
#include "backend/operands.h"
#include "backend/cpu/parallel.h"
#include "backend/cpu/simd/elementwise.h"

namespace lh::cpu {
namespace {

/// Calls body(offsets of each operand, count) over pieces of operands of one shape. Contiguous
/// operands are cut as one flat array; otherwise each row of the last dimension is a piece.
template <size_t kOperands, typename F>
void for_each_piece(const std::array<const Tensor*, kOperands>& operands, std::string_view op,
                    F&& body) {
  const Tensor& first = *operands[0];
  const bool flat = std::all_of(operands.begin(), operands.end(),
                                [](const Tensor* t) { return t->is_contiguous(); });
  if (flat || first.numel() == 0) {
    for_each_block(first.numel(), kFlatBlock, [&](int64_t, int64_t begin, int64_t end) {
      std::array<int64_t, kOperands> offsets;
      offsets.fill(begin);
      body(offsets, end - begin);
    });
    return;
  }
  std::array<RowView, kOperands> views;
  for (size_t i = 0; i < kOperands; ++i)
    views[i] = row_view(*operands[i], first.rank() - 1, op, "operand");
  const auto [rows, cols, unused] = views[0];
  for_each_block(rows, rows_per_task(cols), [&, cols = cols](int64_t, int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      std::array<int64_t, kOperands> offsets;
      for (size_t i = 0; i < kOperands; ++i) offsets[i] = row * views[i].stride;
      body(offsets, cols);
    }
  });
}

/// A contiguous map over tensors like `out`.
template <typename F>
void flat_map(const Tensor& a, const Tensor* b, const Tensor& out, std::string_view op, F&& body) {
  check_like(a, out, op, "a");
  check_contiguous(a, op, "a");
  if (b != nullptr) {
    check_like(*b, out, op, "b");
    check_contiguous(*b, op, "b");
  }
  check_contiguous(out, op, "out");
  for_each_block(out.numel(), kFlatBlock,
                 [&](int64_t, int64_t begin, int64_t end) { body(begin, end - begin); });
}

}  // namespace

void fill(Tensor& dst, double value) {
  check_contiguous(dst, "fill", "dst");
  const auto write = [&]<typename T>(T v) {
    T* data = dst.data<T>();
    for_each_block(dst.numel(), kFlatBlock, [&](int64_t, int64_t begin, int64_t end) {
      std::fill(data + begin, data + end, v);
    });
  };
  switch (dst.dtype()) {
    case DType::kF32: return write(static_cast<float>(value));
    case DType::kBF16: return write(bf16(static_cast<float>(value)));
    case DType::kF64: return write(value);
    case DType::kI32: return write(static_cast<int32_t>(value));
    case DType::kI64: return write(static_cast<int64_t>(value));
    case DType::kU8: return write(static_cast<uint8_t>(value));
  }
}

void add_scaled(const Tensor& a, double alpha, const Tensor& b, double beta, Tensor& out) {
  dispatch_float(out.dtype(), "add_scaled", [&]<typename T>() {
    using S = accumulate_t<T>;
    const S fa = static_cast<S>(alpha), fb = static_cast<S>(beta);
    flat_map(a, &b, out, "add_scaled", [&](int64_t at, int64_t n) {
      LH_SIMD_CALL(add_scaled(lanes<T>(a) + at, fa, lanes<T>(b) + at, fb, lanes<T>(out) + at, n));
    });
  });
}

void scale(const Tensor& a, double alpha, Tensor& out) {
  dispatch_float(out.dtype(), "scale", [&]<typename T>() {
    const auto factor = static_cast<accumulate_t<T>>(alpha);
    flat_map(a, nullptr, out, "scale", [&](int64_t at, int64_t n) {
      LH_SIMD_CALL(scale(lanes<T>(a) + at, factor, lanes<T>(out) + at, n));
    });
  });
}

void scale_by(const Tensor& a, const Tensor& alpha, Tensor& out, bool accumulate) {
  check_shape(alpha, {1}, "scale_by", "alpha");
  const double factor = alpha.item();  // the CPU has no stream to wait for
  if (accumulate) add_scaled(out, 1, a, factor, out);
  else scale(a, factor, out);
}

void multiply(const Tensor& a, const Tensor& b, Tensor& out) {
  dispatch_float(out.dtype(), "multiply", [&]<typename T>() {
    flat_map(a, &b, out, "multiply", [&](int64_t at, int64_t n) {
      LH_SIMD_CALL(multiply(lanes<T>(a) + at, lanes<T>(b) + at, lanes<T>(out) + at, n));
    });
  });
}

void add_bias(Tensor& x, const Tensor& bias) {
  check_rank(x, 2, "add_bias", "x");
  check_shape(bias, {x.size(1)}, "add_bias", "bias");
  check_dtype(bias, x.dtype(), "add_bias", "bias");
  check_contiguous(bias, "add_bias", "bias");
  const RowView view = row_view(x, 1, "add_bias", "x");
  dispatch_float(x.dtype(), "add_bias", [&]<typename T>() {
    const accumulate_t<T> one = 1;
    for_each_block(view.rows, rows_per_task(view.cols), [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        auto* data = lanes<T>(x) + row * view.stride;
        LH_SIMD_CALL(add_scaled(data, one, lanes<T>(bias), one, data, view.cols));
      }
    });
  });
}

void bias_backward(const Tensor& dy, Tensor& d_bias) {
  check_rank(dy, 2, "bias_backward", "dy");
  check_sum(d_bias, {dy.size(1)}, dy.dtype(), "bias_backward", "d_bias");
  const RowView view = row_view(dy, 1, "bias_backward", "dy");
  dispatch_float(dy.dtype(), "bias_backward", [&]<typename T>() {
    using S = accumulate_t<T>;
    S* total = d_bias.data<S>();
    // Columns are independent, so tasks are column slices; each walks the rows in order.
    constexpr int64_t kColumns = 64;
    for_each_block(view.cols, kColumns, [&](int64_t, int64_t begin, int64_t end) {
      S sums[kColumns] = {};
      for (int64_t row = 0; row < view.rows; ++row) {
        const auto* data = lanes<T>(dy) + row * view.stride + begin;
        LH_SIMD_CALL(accumulate(sums, data, S{1}, end - begin));
      }
      for (int64_t i = begin; i < end; ++i) total[i] += sums[i - begin];
    });
  });
}

void swiglu_forward(const Tensor& gate, const Tensor& up, Tensor& y) {
  check_like(gate, y, "swiglu", "gate");
  check_like(up, y, "swiglu", "up");
  dispatch_float(y.dtype(), "swiglu", [&]<typename T>() {
    for_each_piece<3>({&gate, &up, &y}, "swiglu", [&](const auto& at, int64_t n) {
      LH_SIMD_CALL(swiglu_forward(lanes<T>(gate) + at[0], lanes<T>(up) + at[1],
                                  lanes<T>(y) + at[2], n));
    });
  });
}

void swiglu_backward(const Tensor& gate, const Tensor& up, const Tensor& dy, Tensor& d_gate,
                     Tensor& d_up) {
  check_like(gate, dy, "swiglu_backward", "gate");
  check_like(up, dy, "swiglu_backward", "up");
  check_like(d_gate, dy, "swiglu_backward", "d_gate");
  check_like(d_up, dy, "swiglu_backward", "d_up");
  dispatch_float(dy.dtype(), "swiglu_backward", [&]<typename T>() {
    for_each_piece<5>({&gate, &up, &dy, &d_gate, &d_up}, "swiglu_backward",
                      [&](const auto& at, int64_t n) {
                        LH_SIMD_CALL(swiglu_backward(lanes<T>(gate) + at[0], lanes<T>(up) + at[1],
                                                     lanes<T>(dy) + at[2], lanes<T>(d_gate) + at[3],
                                                     lanes<T>(d_up) + at[4], n));
                      });
  });
}

void sigmoid_gate_forward(const Tensor& x, const Tensor& gate, Tensor& y) {
  check_like(x, y, "sigmoid_gate", "x");
  check_like(gate, y, "sigmoid_gate", "gate");
  dispatch_float(y.dtype(), "sigmoid_gate", [&]<typename T>() {
    for_each_piece<3>({&x, &gate, &y}, "sigmoid_gate", [&](const auto& at, int64_t n) {
      LH_SIMD_CALL(sigmoid_gate_forward(lanes<T>(x) + at[0], lanes<T>(gate) + at[1],
                                        lanes<T>(y) + at[2], n));
    });
  });
}

void sigmoid_gate_backward(const Tensor& x, const Tensor& gate, const Tensor& dy, Tensor& dx,
                           Tensor& d_gate) {
  check_like(x, dy, "sigmoid_gate_backward", "x");
  check_like(gate, dy, "sigmoid_gate_backward", "gate");
  check_like(dx, dy, "sigmoid_gate_backward", "dx");
  check_like(d_gate, dy, "sigmoid_gate_backward", "d_gate");
  dispatch_float(dy.dtype(), "sigmoid_gate_backward", [&]<typename T>() {
    for_each_piece<5>({&x, &gate, &dy, &dx, &d_gate}, "sigmoid_gate_backward",
                      [&](const auto& at, int64_t n) {
                        LH_SIMD_CALL(sigmoid_gate_backward(
                            lanes<T>(x) + at[0], lanes<T>(gate) + at[1], lanes<T>(dy) + at[2],
                            lanes<T>(dx) + at[3], lanes<T>(d_gate) + at[4], n));
                      });
  });
}

}  // namespace lh::cpu
