// Elementwise maps, copies and conversions. Tensors of one call have one shape unless said.
#pragma once

#include "tensor/dispatch.h"
#include "tensor/tensor.h"

LH_BACKENDS(
    /// dst = src with conversion between any dtypes; either may be strided. Shapes are equal.
    void copy(const Tensor& src, Tensor& dst);
    void fill(Tensor& dst, double value);
    /// out = alpha a + beta b (out may alias a or b). Contiguous, one floating dtype.
    void add_scaled(const Tensor& a, double alpha, const Tensor& b, double beta, Tensor& out);
    /// out = alpha a.
    void scale(const Tensor& a, double alpha, Tensor& out);
    /// out = (accumulate ? out : 0) + alpha[0] a with alpha [1] on the device: the gradient that
    /// reaches a loss is never read by the host.
    void scale_by(const Tensor& a, const Tensor& alpha, Tensor& out, bool accumulate);
    /// out = a * b elementwise.
    void multiply(const Tensor& a, const Tensor& b, Tensor& out);
    /// x [n, d] += bias [d], in place. bias is the dtype of x.
    void add_bias(Tensor& x, const Tensor& bias);
    /// d_bias [d] (f32, or f64 for f64) += column sums of dy [n, d].
    void bias_backward(const Tensor& dy, Tensor& d_bias);
    /// y = silu(gate) * up, silu(g) = g / (1 + exp(-g)) (Shazeer 2020, "GLU variants").
    void swiglu_forward(const Tensor& gate, const Tensor& up, Tensor& y);
    void swiglu_backward(const Tensor& gate, const Tensor& up, const Tensor& dy, Tensor& d_gate,
                         Tensor& d_up);
    /// y = x * sigmoid(gate): output gates of attention.
    void sigmoid_gate_forward(const Tensor& x, const Tensor& gate, Tensor& y);
    void sigmoid_gate_backward(const Tensor& x, const Tensor& gate, const Tensor& dy, Tensor& dx,
                               Tensor& d_gate);)
