// Matrix products: oneDNN where it is built in, Eigen for f64 and as the fallback.
#include "backend/matmul.h"

#include <Eigen/Core>
#include <map>
#include <mutex>
#include <tuple>
#include <unordered_map>

#include "backend/elementwise.h"
#include "backend/operands.h"
#include "runtime/cpu_info.h"

#ifdef LH_WITH_ONEDNN
#include <oneapi/dnnl/dnnl.hpp>
#endif

namespace lh::cpu {
namespace {

/// op(x) of a rank-2 tensor: logical sizes and strides after the transpose.
struct Operand {
  int64_t rows, cols, row_stride, col_stride;
  Operand(const Tensor& t, bool transpose)
      : rows(t.size(transpose ? 1 : 0)),
        cols(t.size(transpose ? 0 : 1)),
        row_stride(t.strides()[transpose ? 1 : 0]),
        col_stride(t.strides()[transpose ? 0 : 1]) {}
};

template <typename T>
using Matrix = Eigen::Map<Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>,
                          Eigen::Unaligned, Eigen::Stride<Eigen::Dynamic, 1>>;

template <typename T>
Matrix<T> matrix(const Tensor& t) {
  return {t.data<T>(), t.size(0), t.size(1), Eigen::Stride<Eigen::Dynamic, 1>(t.strides()[0], 1)};
}

template <typename T>
void eigen_gemm(const Tensor& a, bool trans_a, const Tensor& b, bool trans_b, Tensor& c,
                bool accumulate) {
  if (c.device().is_meta()) return;  // its packing is on the stack, or the library's own
  auto left = matrix<T>(a), right = matrix<T>(b), result = matrix<T>(c);
  if (!accumulate) result.setZero();
  if (trans_a && trans_b) result.noalias() += left.transpose() * right.transpose();
  else if (trans_a) result.noalias() += left.transpose() * right;
  else if (trans_b) result.noalias() += left * right.transpose();
  else result.noalias() += left * right;
}

Tensor as_f32(const Tensor& t) {
  Tensor wide = Tensor::empty(t.shape(), DType::kF32, t.device());
  if (!t.device().is_meta()) copy(t, wide);
  return wide;
}

/// The same in any type; c + bias when bias is defined.
void eigen_dispatch(const Tensor& a, bool trans_a, const Tensor& b, bool trans_b, Tensor& c,
                    bool accumulate, const Tensor& bias) {
  if (a.dtype() == DType::kBF16) {
    Tensor wide = c.dtype() == DType::kF32 ? c : as_f32(c);
    eigen_gemm<float>(as_f32(a), trans_a, as_f32(b), trans_b, wide, accumulate);
    if (c.device().is_meta()) return;
    if (bias.defined()) add_bias(wide, as_f32(bias));
    if (c.dtype() == DType::kBF16) copy(wide, c);
    return;
  }
  if (a.dtype() == DType::kF64) eigen_gemm<double>(a, trans_a, b, trans_b, c, accumulate);
  else eigen_gemm<float>(a, trans_a, b, trans_b, c, accumulate);
  if (bias.defined() && !c.device().is_meta()) add_bias(c, bias);
}

#ifdef LH_WITH_ONEDNN

dnnl::memory::data_type onednn_type(DType dtype) {
  return dtype == DType::kBF16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
}

/// The library may use only the instructions that the rest of the backend uses.
const dnnl::engine& onednn_engine() {
  static const dnnl::engine engine = [] {
    const CpuInfo& cpu = cpu_info();
    if (cpu.simd == SimdLevel::kGeneric) dnnl::set_max_cpu_isa(dnnl::cpu_isa::sse41);
    else if (cpu.simd == SimdLevel::kAvx2) dnnl::set_max_cpu_isa(dnnl::cpu_isa::avx2);
    else if (!cpu.avx512_bf16) dnnl::set_max_cpu_isa(dnnl::cpu_isa::avx512_core);
    else if (!cpu.amx_bf16) dnnl::set_max_cpu_isa(dnnl::cpu_isa::avx512_core_bf16);
    return dnnl::engine(dnnl::engine::kind::cpu, 0);
  }();
  return engine;
}

struct Product {
  dnnl::matmul primitive;
  dnnl::memory::desc a, b, c, bias, scratchpad;
};

using ProductKey = std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t,
                              int64_t, DType, DType, bool, bool>;

Product make_product(const Operand& a, const Operand& b, const Tensor& c, DType in,
                     bool accumulate, bool with_bias) {
  const auto type = onednn_type(in);
  Product product;
  product.a = {{a.rows, a.cols}, type, dnnl::memory::dims{a.row_stride, a.col_stride}};
  product.b = {{b.rows, b.cols}, type, dnnl::memory::dims{b.row_stride, b.col_stride}};
  product.c = {{a.rows, b.cols}, onednn_type(c.dtype()), dnnl::memory::dims{c.strides()[0], 1}};
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (accumulate) {
    dnnl::post_ops sum;
    sum.append_sum(1.0f);
    attributes.set_post_ops(sum);
  }
  if (with_bias)
    product.bias = {{1, b.cols}, onednn_type(c.dtype()), dnnl::memory::dims{b.cols, 1}};
  const dnnl::matmul::primitive_desc description(
      with_bias ? dnnl::matmul::desc(product.a, product.b, product.bias, product.c)
                : dnnl::matmul::desc(product.a, product.b, product.c),
      attributes, onednn_engine());
  product.primitive = dnnl::matmul(description);
  product.scratchpad = description.scratchpad_desc();
  return product;
}

/// Primitives are compiled code: made once per shape, kept while there are not too many shapes
/// (generation with growing caches could make new ones for ever).
Product cached_product(const Operand& a, const Operand& b, const Tensor& c, DType in,
                       bool accumulate, bool with_bias) {
  constexpr size_t kMaxCached = 512;
  static std::mutex mutex;
  static std::map<ProductKey, Product> cache;
  const ProductKey key{a.rows,       a.cols,         b.cols,    a.row_stride, a.col_stride,
                       b.row_stride, b.col_stride,   c.strides()[0], in,        c.dtype(),
                       accumulate,   with_bias};
  const std::lock_guard lock(mutex);
  const auto found = cache.find(key);
  if (found != cache.end()) return found->second;
  if (cache.size() >= kMaxCached) cache.clear();
  return cache.emplace(key, make_product(a, b, c, in, accumulate, with_bias)).first->second;
}

void onednn_gemm(const Operand& a, const void* a_data, const Operand& b, const void* b_data,
                 Tensor& c, DType in, bool accumulate, const Tensor& bias) {
  const Product product = cached_product(a, b, c, in, accumulate, bias.defined());
  const dnnl::engine& engine = onednn_engine();
  static thread_local dnnl::stream stream(engine);
  const Tensor scratch =
      Tensor::empty({static_cast<int64_t>(product.scratchpad.get_size())}, DType::kU8, c.device());
  if (c.device().is_meta()) return;
  std::unordered_map<int, dnnl::memory> arguments = {
      {DNNL_ARG_SRC, {product.a, engine, const_cast<void*>(a_data)}},
      {DNNL_ARG_WEIGHTS, {product.b, engine, const_cast<void*>(b_data)}},
      {DNNL_ARG_DST, {product.c, engine, c.raw()}},
      {DNNL_ARG_SCRATCHPAD, {product.scratchpad, engine, scratch.raw()}}};
  if (bias.defined())
    arguments.insert({DNNL_ARG_BIAS, dnnl::memory(product.bias, engine, bias.raw())});
  product.primitive.execute(stream, arguments);
  stream.wait();
}

#endif

}  // namespace

void gemm(const Tensor& a, bool trans_a, const Tensor& b, bool trans_b, Tensor& c,
          bool accumulate, const Tensor& bias) {
  const GemmSize size = check_gemm(a, trans_a, b, trans_b, c, bias);
  if (c.numel() == 0) return;
  if (size.k == 0) {
    if (c.device().is_meta()) return;
    if (!accumulate) copy(Tensor::zeros(c.shape(), c.dtype()), c);  // c may be a view
    if (bias.defined()) add_bias(c, bias);
    return;
  }
#ifdef LH_WITH_ONEDNN
  const Operand left(a, trans_a), right(b, trans_b);
  const bool native_bf16 = cpu_info().avx512_bf16 || cpu_info().amx_bf16;
  if (a.dtype() == DType::kF32 || (a.dtype() == DType::kBF16 && native_bf16))
    return onednn_gemm(left, a.raw(), right, b.raw(), c, a.dtype(), accumulate, bias);
  if (a.dtype() == DType::kBF16) {
    // Without bf16 instructions f32 is faster, and as exact.
    const Tensor wide_a = as_f32(a), wide_b = as_f32(b);
    const Tensor wide_bias = bias.defined() ? as_f32(bias) : bias;
    Tensor wide_c = c.dtype() == DType::kF32 ? c
                    : accumulate             ? as_f32(c)
                                             : Tensor::empty(c.shape(), DType::kF32, c.device());
    onednn_gemm(Operand(wide_a, trans_a), wide_a.raw(), Operand(wide_b, trans_b),
                wide_b.raw(), wide_c, DType::kF32, accumulate, wide_bias);
    if (c.dtype() == DType::kBF16 && !c.device().is_meta()) copy(wide_c, c);
    return;
  }
#endif
  eigen_dispatch(a, trans_a, b, trans_b, c, accumulate, bias);
}

void gemm_bias_backward(const Tensor& dy, const Tensor& x, Tensor& d_weight, bool accumulate,
                        Tensor& d_bias) {
  gemm(dy, true, x, false, d_weight, accumulate);
  if (!dy.device().is_meta()) bias_backward(dy, d_bias);
}

void shared_workspace(Device, Tensor& result) {
  result = Tensor();
}

}  // namespace lh::cpu
