// Dense products through cuBLASLt. A row-major matrix is a column-major one transposed, so
// c = op(a) op(b) is asked for as c^T = op(b)^T op(a)^T. The bias and its gradient are epilogues of
// the product: a bias costs no pass over y, its gradient none over dy. Where the library has no
// algorithm with the epilogue (which types and alignments have one is its own matter), the kernels
// of backend/elementwise.h follow the bare product.
#include <cublasLt.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <tuple>
#include <utility>

#include "backend/cuda/kernel_call.h"
#include "backend/elementwise.h"
#include "backend/matmul.h"

namespace lh::cuda {
namespace {

constexpr size_t kWorkspaceBytes = size_t{32} << 20;  // what NVIDIA advises for Hopper

void check(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw std::runtime_error(fmt::format("cuBLASLt: {}: {}", what, cublasLtGetStatusString(status)));
}

/// Owns a handle of cuBLASLt.
template <typename Handle, cublasStatus_t (*kDestroy)(Handle)>
struct Owned {
  Handle handle = nullptr;
  Owned() = default;
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  Owned(Owned&& other) noexcept : handle(std::exchange(other.handle, nullptr)) {}
  Owned& operator=(Owned&& other) noexcept {
    std::swap(handle, other.handle);
    return *this;
  }
  ~Owned() {
    if (handle != nullptr) kDestroy(handle);
  }
  operator Handle() const { return handle; }
};
using Layout = Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Description = Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Preference = Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

struct Library {
  cublasLtHandle_t handle = nullptr;
  Tensor workspace;
};

Library& library(Device device) {
  static std::mutex mutex;
  static auto* libraries = new std::map<int, Library>;
  const std::lock_guard lock(mutex);
  Library& found = (*libraries)[device.index];
  if (found.handle == nullptr) {
    check(cublasLtCreate(&found.handle), "start");
    shared_workspace(device, found.workspace);
  }
  return found;
}

cudaDataType_t cuda_type(DType dtype) {
  return dtype == DType::kBF16 ? CUDA_R_16BF : CUDA_R_32F;
}

/// The column-major view of a row-major matrix: [cols, rows] with leading dimension row_stride.
Layout layout_of(const Tensor& t) {
  Layout layout;
  const int64_t leading = t.size(0) > 1 ? t.strides()[0] : std::max<int64_t>(t.size(1), 1);
  check(cublasLtMatrixLayoutCreate(&layout.handle, cuda_type(t.dtype()),
                                   static_cast<uint64_t>(t.size(1)),
                                   static_cast<uint64_t>(t.size(0)), leading),
        "matrix layout");
  return layout;
}

uint32_t alignment_of(const Tensor& t) {
  const auto address = reinterpret_cast<uintptr_t>(t.raw());
  return static_cast<uint32_t>(std::min<uintptr_t>(address & (~address + 1), 256));
}

template <typename T>
void set(const Preference& preference, cublasLtMatmulPreferenceAttributes_t attribute, T value) {
  check(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value),
        "preference");
}

template <typename T>
void set(cublasLtMatmulDesc_t description, cublasLtMatmulDescAttributes_t attribute, T value) {
  check(cublasLtMatmulDescSetAttribute(description, attribute, &value, sizeof value),
        "description");
}

/// What is fused with a product, and the vector it reads or writes: [columns of c] in c's type for
/// kBias (added to c's rows); [rows of c] in c's type for kBiasGradient (a's sums over k, written).
struct Epilogue {
  enum class Kind : uint8_t { kNone, kBias, kBiasGradient } kind = Kind::kNone;
  Tensor vector;

  cublasLtEpilogue_t value() const {
    switch (kind) {
      case Kind::kBias: return CUBLASLT_EPILOGUE_BIAS;  // by rows of c^T
      case Kind::kBiasGradient: return CUBLASLT_EPILOGUE_BGRADB;  // of the second operand, a
      default: return CUBLASLT_EPILOGUE_DEFAULT;
    }
  }
};

struct Product {
  Description description;
  Layout first, second, result;
  cublasLtMatmulAlgo_t algorithm;
  bool fused = false;  // with the epilogue that was asked for
};

/// Everything the choice of an algorithm depends on.
using Key = std::tuple<int, DType, DType, bool, bool, bool, int64_t, int64_t, int64_t, int64_t,
                       int64_t, int64_t, uint32_t, uint32_t, uint32_t, Epilogue::Kind, uint32_t>;

Product make_product(const Library& lib, const Tensor& a, bool trans_a, const Tensor& b,
                     bool trans_b, const Tensor& c, const Epilogue& epilogue) {
  Product product;
  check(cublasLtMatmulDescCreate(&product.description.handle, CUBLAS_COMPUTE_32F, CUDA_R_32F),
        "description");
  set(product.description, CUBLASLT_MATMUL_DESC_TRANSA, trans_b ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(product.description, CUBLASLT_MATMUL_DESC_TRANSB, trans_a ? CUBLAS_OP_T : CUBLAS_OP_N);
  product.fused = epilogue.kind != Epilogue::Kind::kNone;
  if (product.fused) {
    set(product.description, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue.value());
    set(product.description, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
        static_cast<const void*>(epilogue.vector.raw()));
  }
  product.first = layout_of(b);
  product.second = layout_of(a);
  product.result = layout_of(c);
  Preference preference;
  check(cublasLtMatmulPreferenceCreate(&preference.handle), "preference");
  set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspaceBytes);
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(b));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(a));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of(c));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(c));
  // Without in-place split-K, whose order of additions varies from run to run.
  set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE |
                            CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE));
  cublasLtMatmulHeuristicResult_t found{};
  int count = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      lib.handle, product.description, product.first, product.second, product.result,
      product.result, preference, 1, &found, &count);
  const bool none = count == 0 || status == CUBLAS_STATUS_NOT_SUPPORTED;
  if (none && product.fused) return make_product(lib, a, trans_a, b, trans_b, c, {});
  if (!none) check(status, "choice of an algorithm");
  if (none) throw std::runtime_error("cuBLASLt has no algorithm for this product");
  product.algorithm = found.algo;
  return product;
}

const Product& cached_product(const Library& lib, const Tensor& a, bool trans_a, const Tensor& b,
                              bool trans_b, const Tensor& c, bool accumulate,
                              const Epilogue& epilogue) {
  constexpr size_t kMaxCached = 4096;  // shapes of growing caches would otherwise never end
  static std::mutex mutex;
  static auto* cache = new std::map<Key, Product>;
  const Key key{a.device().index, a.dtype(),       c.dtype(),       trans_a,
                trans_b,          accumulate,      c.size(0),       c.size(1),
                a.size(trans_a ? 0 : 1),           a.strides()[0],  b.strides()[0],
                c.strides()[0],   alignment_of(a), alignment_of(b), alignment_of(c),
                epilogue.kind,    epilogue.vector.defined() ? alignment_of(epilogue.vector) : 0};
  const std::lock_guard lock(mutex);
  const auto found = cache->find(key);
  if (found != cache->end()) return found->second;
  if (cache->size() >= kMaxCached) cache->clear();
  return cache->emplace(key, make_product(lib, a, trans_a, b, trans_b, c, epilogue)).first->second;
}

/// Puts the product on the stream; false when the epilogue is left to the caller.
bool multiply(const Tensor& a, bool trans_a, const Tensor& b, bool trans_b, Tensor& c,
              bool accumulate, const Epilogue& epilogue) {
  if (a.dtype() != DType::kF32 && a.dtype() != DType::kBF16)
    fail<ShapeError>("[gemm] expected f32 or bf16, which the CUDA backend computes in, got {}", a.str());
  bool fused = false;
  call("gemm", {&a, &b, &c, &epilogue.vector}, [&](gpu::Stream stream) {
    const Library& lib = library(a.device());
    const Product& product =
        cached_product(lib, a, trans_a, b, trans_b, c, accumulate, epilogue);
    // A copy, because the vector's address belongs to the call and the product to the cache.
    cublasLtMatmulDescOpaque_t description = *product.description.handle;
    if (product.fused)
      set(&description, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
          static_cast<const void*>(epilogue.vector.raw()));
    const float alpha = 1, beta = accumulate ? 1.0f : 0.0f;
    check(cublasLtMatmul(lib.handle, &description, &alpha, b.raw(), product.first, a.raw(),
                         product.second, &beta, c.raw(), product.result, c.raw(), product.result,
                         &product.algorithm, lib.workspace.raw(), kWorkspaceBytes, stream),
          "product");
    fused = product.fused;
  });
  return fused;
}

}  // namespace

void gemm(const Tensor& a, bool trans_a, const Tensor& b, bool trans_b, Tensor& c,
          bool accumulate, const Tensor& bias) {
  const GemmSize size = check_gemm(a, trans_a, b, trans_b, c, bias);
  if (c.numel() == 0) return;
  Epilogue epilogue;
  if (bias.defined()) epilogue = {Epilogue::Kind::kBias, bias};
  bool fused = false;
  if (size.k > 0) fused = multiply(a, trans_a, b, trans_b, c, accumulate, epilogue);
  else if (!accumulate) copy(Tensor::zeros(c.shape(), c.dtype(), c.device()), c);  // c may be a view
  if (bias.defined() && !fused) add_bias(c, bias);
}

void gemm_bias_backward(const Tensor& dy, const Tensor& x, Tensor& d_weight, bool accumulate,
                        Tensor& d_bias) {
  const GemmSize size = check_gemm(dy, true, x, false, d_weight);
  check_sum(d_bias, {size.m}, dy.dtype(), "gemm_bias_backward", "d_bias");
  // The library writes the sums in the type of d_weight, and writes where we add.
  if (d_weight.dtype() == DType::kF32 && d_weight.numel() > 0 && size.k > 0) {
    const Epilogue sums{Epilogue::Kind::kBiasGradient, Tensor::empty_like(d_bias)};
    // Not fused on the meta device: a plan counts the larger of the two.
    if (multiply(dy, true, x, false, d_weight, accumulate, sums))
      return add_scaled(d_bias, 1, sums.vector, 1, d_bias);
    return bias_backward(dy, d_bias);
  }
  gemm(dy, true, x, false, d_weight, accumulate);
  bias_backward(dy, d_bias);
}

void shared_workspace(Device device, Tensor& result) {
  result = workspace(kWorkspaceBytes, device);
}

}  // namespace lh::cuda
