// Dense products through cuBLASLt. A row-major matrix is a column-major one transposed, so
// c = op(a) op(b) is asked for as c^T = op(b)^T op(a)^T.
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
    found.workspace = workspace(kWorkspaceBytes, device);
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

struct Product {
  Description description;
  Layout first, second, result;
  cublasLtMatmulAlgo_t algorithm;
};

/// Everything the choice of an algorithm depends on.
using Key = std::tuple<int, DType, DType, bool, bool, bool, int64_t, int64_t, int64_t, int64_t,
                       int64_t, int64_t, uint32_t, uint32_t, uint32_t>;

Product make_product(const Library& lib, const Tensor& a, bool trans_a, const Tensor& b,
                     bool trans_b, const Tensor& c) {
  Product product;
  check(cublasLtMatmulDescCreate(&product.description.handle, CUBLAS_COMPUTE_32F, CUDA_R_32F),
        "description");
  const cublasOperation_t first = trans_b ? CUBLAS_OP_T : CUBLAS_OP_N;
  const cublasOperation_t second = trans_a ? CUBLAS_OP_T : CUBLAS_OP_N;
  check(cublasLtMatmulDescSetAttribute(product.description, CUBLASLT_MATMUL_DESC_TRANSA, &first,
                                       sizeof first),
        "transpose");
  check(cublasLtMatmulDescSetAttribute(product.description, CUBLASLT_MATMUL_DESC_TRANSB, &second,
                                       sizeof second),
        "transpose");
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
  check(cublasLtMatmulAlgoGetHeuristic(lib.handle, product.description, product.first,
                                       product.second, product.result, product.result, preference,
                                       1, &found, &count),
        "choice of an algorithm");
  if (count == 0) throw std::runtime_error("cuBLASLt has no algorithm for this product");
  product.algorithm = found.algo;
  return product;
}

const Product& cached_product(const Library& lib, const Tensor& a, bool trans_a, const Tensor& b,
                              bool trans_b, const Tensor& c, bool accumulate) {
  constexpr size_t kMaxCached = 4096;  // shapes of growing caches would otherwise never end
  static std::mutex mutex;
  static auto* cache = new std::map<Key, Product>;
  const Key key{a.device().index, a.dtype(),       c.dtype(),       trans_a,
                trans_b,          accumulate,      c.size(0),       c.size(1),
                a.size(trans_a ? 0 : 1),           a.strides()[0],  b.strides()[0],
                c.strides()[0],   alignment_of(a), alignment_of(b), alignment_of(c)};
  const std::lock_guard lock(mutex);
  const auto found = cache->find(key);
  if (found != cache->end()) return found->second;
  if (cache->size() >= kMaxCached) cache->clear();
  return cache->emplace(key, make_product(lib, a, trans_a, b, trans_b, c)).first->second;
}

}  // namespace

void gemm(const Tensor& a, bool trans_a, const Tensor& b, bool trans_b, Tensor& c,
          bool accumulate) {
  const GemmSize size = check_gemm(a, trans_a, b, trans_b, c);
  if (c.numel() == 0) return;
  if (size.k == 0) {
    if (!accumulate) fill(c, 0);
    return;
  }
  if (a.dtype() != DType::kF32 && a.dtype() != DType::kBF16)
    fail<ShapeError>("[gemm] the CUDA backend computes in f32 and bf16, got {}", a.str());
  call("gemm", {&a, &b, &c}, [&](gpu::Stream stream) {
    const Library& lib = library(a.device());
    const Product& product = cached_product(lib, a, trans_a, b, trans_b, c, accumulate);
    const float alpha = 1, beta = accumulate ? 1.0f : 0.0f;
    check(cublasLtMatmul(lib.handle, product.description, &alpha, b.raw(), product.first, a.raw(),
                         product.second, &beta, c.raw(), product.result, c.raw(), product.result,
                         &product.algorithm, lib.workspace.raw(), kWorkspaceBytes, stream),
          "product");
  });
}

}  // namespace lh::cuda
