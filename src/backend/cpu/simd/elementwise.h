// Elementwise kernels over n contiguous elements. T is float, double or uint16_t (bfloat16 bits);
// S is the type of arithmetic: double for double, else float.
#pragma once

#include <cstdint>

#include "backend/cpu/simd.h"

LH_SIMD_DECLARE(
    /// out = alpha a + beta b.
    template <typename T, typename S> void add_scaled(const T* a, S alpha, const T* b, S beta,
                                                      T* out, int64_t n);
    template <typename T, typename S> void scale(const T* a, S alpha, T* out, int64_t n);
    template <typename T> void multiply(const T* a, const T* b, T* out, int64_t n);
    /// sum += alpha a.
    template <typename T, typename S> void accumulate(S* sum, const T* a, S alpha, int64_t n);
    template <typename T> void swiglu_forward(const T* gate, const T* up, T* y, int64_t n);
    template <typename T> void swiglu_backward(const T* gate, const T* up, const T* dy, T* d_gate,
                                               T* d_up, int64_t n);
    template <typename T> void sigmoid_gate_forward(const T* x, const T* gate, T* y, int64_t n);
    template <typename T> void sigmoid_gate_backward(const T* x, const T* gate, const T* dy, T* dx,
                                                     T* d_gate, int64_t n);
    void convert(const float* src, uint16_t* dst, int64_t n);
    void convert(const uint16_t* src, float* dst, int64_t n);
    void exponentials(const float* x, float* y, int64_t n);)
