#include "backend/operands.h"

namespace lh {

RowView row_view(const Tensor& t, int first_inner, std::string_view op, std::string_view name) {
  RowView view{1, 1, 0};
  int64_t expected = 1;  // stride of the next dimension to the left within a row
  for (int dim = t.rank() - 1; dim >= first_inner; --dim) {
    if (t.size(dim) != 1 && t.strides()[dim] != expected && t.numel() > 0)
      fail<ShapeError>("[{}] {}: expected contiguous dimensions from {} on, got strides {} of {}",
                       op, name, first_inner, t.strides().str(), t.str());
    expected *= t.size(dim);
  }
  view.cols = expected;
  view.stride = expected;
  bool first = true;
  for (int dim = first_inner - 1; dim >= 0; --dim) {
    if (t.size(dim) == 1) continue;
    if (first) {
      view.stride = expected = t.strides()[dim];
      first = false;
    } else if (t.strides()[dim] != expected && t.numel() > 0) {
      fail<ShapeError>("[{}] {}: leading dimensions must have one common row stride, got strides "
                       "{} of {}",
                       op, name, t.strides().str(), t.str());
    }
    expected *= t.size(dim);
    view.rows *= t.size(dim);
  }
  return view;
}

std::vector<CopyDim> merged_copy_dims(const Tensor& src, const Tensor& dst) {
  std::vector<CopyDim> dims;
  for (int i = 0; i < src.rank(); ++i) {
    const CopyDim dim{src.size(i), src.strides()[i], dst.strides()[i]};
    if (dim.size == 1) continue;
    if (!dims.empty() && dims.back().src == dim.src * dim.size &&
        dims.back().dst == dim.dst * dim.size) {
      dims.back() = {dims.back().size * dim.size, dim.src, dim.dst};
    } else {
      dims.push_back(dim);
    }
  }
  if (dims.empty()) dims.push_back({1, 1, 1});
  return dims;
}

GemmSize check_gemm(const Tensor& a, bool trans_a, const Tensor& b, bool trans_b, const Tensor& c,
                    const Tensor& bias) {
  if (a.rank() != 2 || b.rank() != 2)
    fail<ShapeError>("[gemm] expected matrices, got {} and {}", a.str(), b.str());
  if (!(a.device() == b.device()) || !(a.device() == c.device()))
    fail<ShapeError>("[gemm] expected operands on one device, got a {}, b {} and c {}", a.str(),
                     b.str(), c.str());
  const GemmSize size{a.size(trans_a ? 1 : 0), b.size(trans_b ? 0 : 1), a.size(trans_a ? 0 : 1)};
  if (b.size(trans_b ? 1 : 0) != size.k || a.dtype() != b.dtype())
    fail<ShapeError>("[gemm] expected one dtype and one inner size, got a {}{} and b {}{}", a.str(),
                     trans_a ? " transposed" : "", b.str(), trans_b ? " transposed" : "");
  check_shape(c, {size.m, size.n}, "gemm", "c");
  if (c.dtype() != a.dtype() && !(a.dtype() == DType::kBF16 && c.dtype() == DType::kF32))
    fail<ShapeError>("[gemm] c: expected {}{}, got {}", dtype_name(a.dtype()),
                     a.dtype() == DType::kBF16 ? " or f32" : "", c.str());
  const auto check_inner = [](const Tensor& t, const char* name) {
    LH_CHECK(t.strides()[1] == 1 || t.size(1) == 1, "[gemm] {}: expected inner stride 1, got strides {}",
             name, t.strides().str());
  };
  check_inner(a, "a");
  check_inner(b, "b");
  check_inner(c, "c");
  if (bias.defined()) {
    check_shape(bias, {size.n}, "gemm", "bias");
    check_dtype(bias, c.dtype(), "gemm", "bias");
    check_contiguous(bias, "gemm", "bias");
  }
  return size;
}

}  // namespace lh
