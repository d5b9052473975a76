#include "ops/slice.h"

#include "backend/elementwise.h"

namespace lh {
namespace {

Tensor copy_of(const Tensor& view) {
  Tensor out = Tensor::empty(view.shape(), view.dtype(), view.device());
  LH_DISPATCH(out.device(), "slice", copy(view, out));
  return out;
}

}  // namespace

Variable slice(const Variable& x, int dim, int64_t begin, int64_t end) {
  return record("slice", {x}, copy_of(x.value().slice(dim, begin, end)),
                [dim, begin, end](Gradients& gradients) {
                  // Parts may overlap: each adds where it lies.
                  Tensor place = gradients.accumulator(0).slice(dim, begin, end);
                  Tensor sum = copy_of(place), part = Tensor::empty_like(sum);
                  LH_DISPATCH(sum.device(), "slice", copy(gradients.output(), part));
                  LH_DISPATCH(sum.device(), "slice", add_scaled(sum, 1, part, 1, sum));
                  LH_DISPATCH(sum.device(), "slice", copy(sum, place));
                });
}

Variable concat(const std::vector<Variable>& parts, int dim) {
  LH_CHECK(!parts.empty(), "[concat] no parts");
  const Tensor& first = parts.front().value();
  Shape shape = first.shape();
  std::vector<int64_t> ends;
  for (const Variable& part : parts) {
    shape[dim] = part.size(dim);
    check_shape(part.value(), shape, "concat", "part");
    check_dtype(part.value(), first.dtype(), "concat", "part");
    ends.push_back((ends.empty() ? 0 : ends.back()) + part.size(dim));
  }
  shape[dim] = ends.back();
  const Tensor out = Tensor::empty(shape, first.dtype(), first.device());
  for (size_t i = 0; i < parts.size(); ++i) {
    Tensor place = out.slice(dim, i == 0 ? 0 : ends[i - 1], ends[i]);
    LH_DISPATCH(out.device(), "concat", copy(parts[i].value(), place));
  }
  return record("concat", parts, out, [dim, ends](Gradients& gradients) {
    for (size_t i = 0; i < ends.size(); ++i)
      if (gradients.wants(static_cast<int>(i)))
        gradients.add(static_cast<int>(i),
                      copy_of(gradients.output().slice(dim, i == 0 ? 0 : ends[i - 1], ends[i])));
  });
}

}  // namespace lh
