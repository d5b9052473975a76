// Rotary position embedding (Su et al. 2021), the "rotate half" pairing (i, i + d/2) that Hugging
// Face checkpoints use.
#pragma once

#include "tensor/dispatch.h"
#include "tensor/tensor.h"

LH_BACKENDS(
    /// y[n, h, i] = x[i] cos - x[i + d/2] sin and y[i + d/2] = x[i + d/2] cos + x[i] sin with
    /// cos, sin = table[positions[n]]. x, y [n, h, d] (y may alias x); table [max_position, d] f32
    /// or f64: d/2 cosines then d/2 sines, any attention factor already multiplied in;
    /// positions [n] i32. inverse: rotate by the negative angle, which is the backward.
    void rope(const Tensor& x, const Tensor& table, const Tensor& positions, bool inverse,
              Tensor& y);)
