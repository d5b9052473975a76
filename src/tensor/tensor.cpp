#include "tensor/tensor.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>

#include "runtime/arena.h"
#include "runtime/gpu.h"
#include "runtime/memory_counters.h"

namespace lh {
namespace {

Shape row_major_strides(const Shape& shape) {
  Shape strides = shape;
  int64_t step = 1;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    strides[i] = step;
    step *= shape[i];
  }
  return strides;
}

}  // namespace

std::string Shape::str() const {
  return fmt::format("[{}]", fmt::join(sizes(), ", "));
}

Storage::Storage(size_t bytes, Device device, MemoryOwner owner)
    : bytes_(bytes), device_(device), owner_(owner) {
  if (device.is_meta()) {
    data_ = nullptr;
    count_allocation(DeviceKind::kMeta, owner, static_cast<int64_t>(bytes));
  } else if (device.is_cpu()) {
    data_ = static_cast<char*>(cpu_allocate(bytes, owner));
  } else if constexpr (kWithCuda) {
    data_ = static_cast<char*>(gpu::allocate(device, bytes, owner));
  } else {
    fail("this build has no CUDA backend, so there is no {}", device.str());
  }
}

Storage::~Storage() {
  if (device_.is_meta())
    count_allocation(DeviceKind::kMeta, owner_, -static_cast<int64_t>(bytes_));
  else if (device_.is_cpu()) cpu_free(data_, bytes_, owner_);
  else if constexpr (kWithCuda) gpu::release(device_, data_, bytes_, owner_);
}

Tensor Tensor::empty(const Shape& shape, DType dtype, Device device) {
  int64_t bytes = static_cast<int64_t>(dtype_size(dtype));
  for (const int64_t size : shape.sizes()) {
    LH_CHECK(size >= 0, "[empty] negative size in shape {}", shape.str());
    if (__builtin_mul_overflow(bytes, size, &bytes))
      fail<ShapeError>("a tensor {}{} has more bytes than memory has addresses", dtype_name(dtype),
                       shape.str());
  }
  Tensor result;
  result.dtype_ = dtype;
  result.shape_ = shape;
  result.strides_ = row_major_strides(shape);
  result.storage_ =
      std::make_shared<Storage>(static_cast<size_t>(bytes), device, current_memory_owner());
  return result;
}

Tensor Tensor::zeros(const Shape& shape, DType dtype, Device device) {
  Tensor result = empty(shape, dtype, device);
  if (device.is_meta()) return result;
  if (device.is_cpu()) std::memset(result.raw(), 0, result.bytes());
  else if constexpr (kWithCuda) gpu::fill_bytes(device, result.raw(), 0, result.bytes());
  return result;
}

bool Tensor::is_contiguous() const {
  int64_t step = 1;
  for (int i = rank() - 1; i >= 0; --i) {
    if (shape_[i] != 1 && strides_[i] != step) return false;
    step *= shape_[i];
  }
  return true;
}

double Tensor::item() const {
  LH_CHECK(numel() == 1, "[item] expected one value, got {}", str());
  if (device().is_meta()) return 0;
  if (!device().is_cpu()) return to(kCpuDevice).item();
  switch (dtype_) {
    case DType::kF32:
      return *data<float>();
    case DType::kBF16:
      return static_cast<float>(*data<bf16>());
    case DType::kF64:
      return *data<double>();
    case DType::kI32:
      return *data<int32_t>();
    case DType::kI64:
      return static_cast<double>(*data<int64_t>());
    case DType::kU8:
      return *data<uint8_t>();
  }
  return 0;
}

Tensor Tensor::to(Device target) const {
  if (device() == target) return *this;
  Tensor result = empty(shape_, dtype_, target);
  result.copy_bytes_from(*this);
  return result;
}

void Tensor::copy_bytes_from(const Tensor& source) {
  LH_CHECK(is_contiguous() && source.is_contiguous() && shape_ == source.shape_ &&
               dtype_ == source.dtype_ && (device().is_cpu() || source.device().is_cpu()),
           "[copy] expected contiguous tensors of one shape and dtype, one of them on the cpu, got "
           "{} and {}",
           source.str(), str());
  if (device().is_meta() || source.device().is_meta()) return;
  if (device().is_cpu() && source.device().is_cpu()) {
    std::memcpy(raw(), source.raw(), bytes());
  } else if constexpr (kWithCuda) {
    if (source.device().is_cpu()) gpu::copy_in(device(), raw(), source.raw(), bytes());
    else gpu::copy_out(source.device(), raw(), source.raw(), bytes());
  }
}

Tensor Tensor::reshape(const Shape& shape) const {
  LH_CHECK(is_contiguous(), "[reshape] needs a contiguous tensor, got strides {}", strides_.str());
  Shape sizes = shape;
  int64_t known = 1;
  int inferred = -1;
  for (int i = 0; i < sizes.rank(); ++i) {
    if (sizes[i] == -1 && inferred < 0)
      inferred = i;
    else
      known *= sizes[i];
  }
  if (inferred >= 0 && known > 0) sizes[inferred] = numel() / known;
  if (sizes.numel() != numel())
    fail<ShapeError>("[reshape] cannot view {} as {}", str(), shape.str());
  Tensor view = *this;
  view.shape_ = sizes;
  view.strides_ = row_major_strides(sizes);
  return view;
}

Tensor Tensor::slice(int dim, int64_t begin, int64_t end) const {
  if (begin < 0 || begin > end || end > size(dim))
    fail<ShapeError>("[slice] [{}, {}) of dimension {} of {}", begin, end, dim, str());
  Tensor view = *this;
  view.offset_ += begin * strides_[dim];
  view.shape_[dim] = end - begin;
  return view;
}

Tensor Tensor::transpose(int dim_a, int dim_b) const {
  Tensor view = *this;
  std::swap(view.shape_[dim_a], view.shape_[dim_b]);
  std::swap(view.strides_[dim_a], view.strides_[dim_b]);
  return view;
}

std::string Tensor::str() const {
  if (!defined()) return "undefined tensor";
  return fmt::format("{}{} on {}", dtype_name(dtype_), shape_.str(), device().str());
}

void Tensor::check_dtype(DType wanted) const {
  LH_CHECK(defined() && dtype_ == wanted, "[data] expected a tensor of {}, got {}",
           dtype_name(wanted), str());
}

void Tensor::check_host_contiguous() const {
  LH_CHECK(device().is_cpu() && is_contiguous(), "[span] expected a contiguous cpu tensor, got {}",
           str());
}

void check_shape(const Tensor& tensor, const Shape& expected, std::string_view op,
                 std::string_view name) {
  if (!tensor.defined() || !(tensor.shape() == expected))
    fail<ShapeError>("[{}] {}: expected shape {}, got {}", op, name, expected.str(), tensor.str());
}

void check_dtype(const Tensor& tensor, DType expected, std::string_view op, std::string_view name) {
  if (!tensor.defined() || tensor.dtype() != expected)
    fail<ShapeError>("[{}] {}: expected {}, got {}", op, name, dtype_name(expected), tensor.str());
}

}  // namespace lh
