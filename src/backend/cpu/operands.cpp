#include "backend/cpu/operands.h"

namespace lh::cpu {

RowView row_view(const Tensor& t, int first_inner, std::string_view op, std::string_view name) {
  RowView view{1, 1, 0};
  int64_t expected = 1;  // stride of the next dimension to the left within a row
  for (int dim = t.rank() - 1; dim >= first_inner; --dim) {
    if (t.size(dim) != 1 && t.strides()[dim] != expected && t.numel() > 0)
      fail<ShapeError>("[{}] {}: dimensions from {} on must be contiguous, got strides {} of {}",
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

}  // namespace lh::cpu
