// Tensor: a value handle on shared storage with dtype, shape, strides and offset. Copying a Tensor
// copies the handle; views share storage. No arithmetic lives here (see backend/ and ops/).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/device.h"
#include "runtime/memory.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"

namespace lh {

/// A block of device memory, charged to one owner, freed with the last tensor that views it.
class Storage {
 public:
  Storage(size_t bytes, Device device, MemoryOwner owner);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  char* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  Device device() const { return device_; }

 private:
  char* data_;
  size_t bytes_;
  Device device_;
  MemoryOwner owner_;
};

class Tensor {
 public:
  Tensor() = default;  // undefined: defined() is false

  /// Not initialised; charged to the memory owner in scope.
  static Tensor empty(const Shape& shape, DType dtype, Device device = kCpuDevice);
  static Tensor zeros(const Shape& shape, DType dtype, Device device = kCpuDevice);
  /// CPU tensor with a copy of the values, row-major.
  template <typename T>
  static Tensor from(std::span<const T> values, const Shape& shape) {
    LH_CHECK_EQ(static_cast<int64_t>(values.size()), shape.numel(), "[from] value count");
    Tensor result = empty(shape, dtype_of<T>());
    std::copy(values.begin(), values.end(), result.data<T>());
    return result;
  }
  template <typename T>
  static Tensor from(const std::vector<T>& values, const Shape& shape) {
    return from(std::span<const T>(values), shape);
  }
  /// Uninitialised, contiguous, same shape, dtype and device.
  static Tensor empty_like(const Tensor& other) {
    return empty(other.shape(), other.dtype(), other.device());
  }

  bool defined() const { return storage_ != nullptr; }
  DType dtype() const { return dtype_; }
  Device device() const { return storage_ == nullptr ? kCpuDevice : storage_->device(); }
  const Shape& shape() const { return shape_; }
  const Shape& strides() const { return strides_; }  // in elements
  int rank() const { return shape_.rank(); }
  int64_t size(int dim) const { return shape_[dim]; }
  int64_t numel() const { return shape_.numel(); }
  size_t bytes() const { return static_cast<size_t>(numel()) * dtype_size(dtype_); }
  bool is_contiguous() const;
  /// True when no other handle or view keeps this storage, so that it may be overwritten.
  bool is_sole_owner() const { return storage_.use_count() == 1; }
  bool shares_storage(const Tensor& other) const { return storage_ == other.storage_; }

  /// Pointer to the first element; throws when T is not the dtype.
  template <typename T>
  T* data() const {
    check_dtype(dtype_of<T>());
    return reinterpret_cast<T*>(raw());
  }
  /// Pointer to the first byte, of whatever dtype. Constness is of the handle, not of the data.
  char* raw() const {
    return storage_->data() + offset_ * static_cast<int64_t>(dtype_size(dtype_));
  }
  /// All values of a contiguous CPU tensor.
  template <typename T>
  std::span<T> span() const {
    check_host_contiguous();
    return {data<T>(), static_cast<size_t>(numel())};
  }
  /// The single value of a one-element tensor, converted to double; waits for the device. 0 on the
  /// meta device.
  double item() const;

  /// The same values on another device; itself when it is there already. A copy to the host waits
  /// for the device. Needs a contiguous tensor.
  Tensor to(Device target) const;
  /// Copies the bytes of a contiguous tensor of the same shape and dtype, one of the two on the host.
  void copy_bytes_from(const Tensor& source);

  // Views. All share storage.
  /// Same elements, other shape; one size may be -1. Needs a contiguous tensor.
  Tensor reshape(const Shape& shape) const;
  /// Elements [begin, end) of one dimension.
  Tensor slice(int dim, int64_t begin, int64_t end) const;
  Tensor transpose(int dim_a, int dim_b) const;

  /// "f32[2, 3] on cpu", for messages.
  std::string str() const;

 private:
  void check_dtype(DType wanted) const;
  void check_host_contiguous() const;

  std::shared_ptr<Storage> storage_;
  Shape shape_;
  Shape strides_;
  int64_t offset_ = 0;
  DType dtype_ = DType::kF32;
};

/// Throws ShapeError "[op] name: expected f32[..], got .." unless shape (and dtype) match.
void check_shape(const Tensor& tensor, const Shape& expected, std::string_view op,
                 std::string_view name);
void check_dtype(const Tensor& tensor, DType expected, std::string_view op, std::string_view name);

}  // namespace lh
