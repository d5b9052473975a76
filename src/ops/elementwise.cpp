#include "ops/elementwise.h"

#include "backend/elementwise.h"

namespace lh {
namespace {

void check_same(const Variable& a, const Variable& b, const char* op) {
  if (!(a.shape() == b.shape()) || a.dtype() != b.dtype())
    fail<ShapeError>("[{}] expected equal shapes and dtypes, got {} and {}", op, a.value().str(),
                     b.value().str());
}

Tensor scaled(const Tensor& a, double alpha) {
  if (alpha == 1) return a;
  Tensor out = Tensor::empty_like(a);
  LH_DISPATCH(a.device(), "scale", scale(a, alpha, out));
  return out;
}

Tensor product(const Tensor& a, const Tensor& b) {
  Tensor out = Tensor::empty_like(a);
  LH_DISPATCH(a.device(), "multiply", multiply(a, b, out));
  return out;
}

Tensor converted(const Tensor& x, DType dtype) {
  Tensor out = Tensor::empty(x.shape(), dtype, x.device());
  LH_DISPATCH(x.device(), "cast", copy(x, out));
  return out;
}

}  // namespace

Variable add(const Variable& a, const Variable& b, double alpha, double beta) {
  check_same(a, b, "add");
  Tensor out = Tensor::empty_like(a.value());
  LH_DISPATCH(a.device(), "add", add_scaled(a.value(), alpha, b.value(), beta, out));
  return record("add", {a, b}, out, [alpha, beta](Gradients& gradients) {
    if (gradients.wants(0)) gradients.add(0, scaled(gradients.output(), alpha));
    if (gradients.wants(1)) gradients.add(1, scaled(gradients.output(), beta));
  });
}

Variable scale(const Variable& a, double alpha) {
  return record("scale", {a}, scaled(a.value(), alpha), [alpha](Gradients& gradients) {
    gradients.add(0, scaled(gradients.output(), alpha));
  });
}

Variable multiply(const Variable& a, const Variable& b) {
  check_same(a, b, "multiply");
  return record("multiply", {a, b}, product(a.value(), b.value()),
                [a = Saved(a), b = Saved(b)](Gradients& gradients) {
                  if (gradients.wants(0)) gradients.add(0, product(gradients.output(), b.get()));
                  if (gradients.wants(1)) gradients.add(1, product(gradients.output(), a.get()));
                });
}

Variable cast(const Variable& x, DType dtype) {
  if (x.dtype() == dtype) return x;
  return record("cast", {x}, converted(x.value(), dtype),
                [from = x.dtype()](Gradients& gradients) {
                  gradients.add(0, converted(gradients.output(), from));
                });
}

Variable swiglu(const Variable& gate, const Variable& up) {
  check_same(gate, up, "swiglu");
  const auto forward = [](const Tensor& g, const Tensor& u) {
    Tensor y = Tensor::empty_like(g);
    LH_DISPATCH(g.device(), "swiglu", swiglu_forward(g, u, y));
    return y;
  };
  const Saved g(gate), u(up);
  return record_cheap(
      "swiglu", {gate, up}, forward(gate.value(), up.value()),
      [g, u](Gradients& gradients) {
        const Tensor& dy = gradients.output();
        Tensor dg = Tensor::empty_like(dy), du = Tensor::empty_like(dy);
        LH_DISPATCH(dy.device(), "swiglu", swiglu_backward(g.get(), u.get(), dy, dg, du));
        gradients.add(0, dg);
        gradients.add(1, du);
      },
      [g, u, forward] { return forward(g.get(), u.get()); });
}

Variable sigmoid_gate(const Variable& x, const Variable& gate) {
  check_same(x, gate, "sigmoid_gate");
  const auto forward = [](const Tensor& value, const Tensor& g) {
    Tensor y = Tensor::empty_like(value);
    LH_DISPATCH(value.device(), "sigmoid_gate", sigmoid_gate_forward(value, g, y));
    return y;
  };
  const Saved saved_x(x), saved_gate(gate);
  return record_cheap(
      "sigmoid_gate", {x, gate}, forward(x.value(), gate.value()),
      [saved_x, saved_gate](Gradients& gradients) {
        const Tensor& dy = gradients.output();
        Tensor dx = Tensor::empty_like(dy), dgate = Tensor::empty_like(dy);
        LH_DISPATCH(dy.device(), "sigmoid_gate",
                    sigmoid_gate_backward(saved_x.get(), saved_gate.get(), dy, dx, dgate));
        gradients.add(0, dx);
        gradients.add(1, dgate);
      },
      [saved_x, saved_gate, forward] { return forward(saved_x.get(), saved_gate.get()); });
}

}  // namespace lh
