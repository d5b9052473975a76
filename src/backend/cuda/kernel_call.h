// What the files of this folder share: tensors as kernels take them, and errors that name the
// operation and its tensors.
#pragma once

#include <concepts>
#include <initializer_list>
#include <type_traits>

#include "backend/operands.h"
#include "kernels/xpu/types.h"
#include "runtime/gpu.h"
#include "tensor/tensor.h"

namespace lh::cuda {

/// The kernels' name for an element type.
template <typename T>
using kernel_t = std::conditional_t<std::is_same_v<T, bf16>, xpu::bf16, T>;

/// Pointer for a kernel; nullptr for an undefined tensor.
template <typename T>
kernel_t<T>* pointer(const Tensor& t) {
  return t.defined() ? reinterpret_cast<kernel_t<T>*>(t.data<T>()) : nullptr;
}

/// Sizes and counts that a kernel keeps in 32 bits.
inline int narrow(int64_t value, std::string_view op, std::string_view what) {
  if (value < 0 || value > INT32_MAX)
    fail<ShapeError>("[{}] {} = {} is more than a kernel takes", op, what, value);
  return static_cast<int>(value);
}

/// Calls function.template operator()<T>() for f32 and bf16, the types kernels compute in.
template <typename F>
void dispatch_kernel(DType dtype, std::string_view op, F&& function) {
  switch (dtype) {
    case DType::kF32: return function.template operator()<float>();
    case DType::kBF16: return function.template operator()<bf16>();
    default:
      fail<ShapeError>("[{}] expected f32 or bf16, which the CUDA backend computes in, got {}", op,
                       dtype_name(dtype));
  }
}

[[noreturn]] void fail_in(std::string_view op, std::initializer_list<const Tensor*> operands,
                          const char* reason);

/// Runs launchers on the stream of the first operand; what they throw is thrown again with the
/// operation and the operands. Operands on the meta device are checked and nothing is run: a plan counts the
/// memory that was allocated before. What is allocated in `launch` (arrays of work items, lists of
/// parameters) it leaves out: a few bytes per tile or parameter.
template <typename F>
void call(std::string_view op, std::initializer_list<const Tensor*> operands, F&& launch) {
  const Device device = (*operands.begin())->device();
  for (const Tensor* t : operands)
    if (t->defined() && !(t->device() == device)) fail_in(op, operands, "all must be on one device");
  if (device.is_meta()) return;
  try {
    launch(gpu::stream(device));
    if (gpu::synchronous()) gpu::synchronize(device);
  } catch (const ShapeError&) {
    throw;
  } catch (const std::runtime_error& error) {
    fail_in(op, operands, error.what());
  }
}

/// Device copy of a host array that is read on the stream and then dropped.
template <typename T>
Tensor device_copy(const T* host, size_t count, Device device) {
  const MemoryScope scope(MemoryOwner::kData);
  const auto bytes = static_cast<int64_t>(count * sizeof(T));
  Tensor result = Tensor::empty({std::max<int64_t>(bytes, 1)}, DType::kU8, device);
  if (bytes > 0) gpu::copy_in(device, result.raw(), host, static_cast<size_t>(bytes));
  return result;
}

/// Memory for one call's intermediate results.
inline Tensor workspace(size_t bytes, Device device) {
  return Tensor::empty({static_cast<int64_t>(std::max<size_t>(bytes, 1))}, DType::kU8, device);
}

}  // namespace lh::cuda
