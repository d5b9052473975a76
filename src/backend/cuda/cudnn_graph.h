// An operation graph of cuDNN's backend interface, and the plan that computes it. Tensors have four
// dimensions; those with an address are named by the number that adding them returned.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backend/cuda/cudnn_library.h"

namespace lh::cuda::cudnn {

using Dims = std::array<int64_t, 4>;

/// Owns one object of the backend interface.
class Descriptor {
 public:
  explicit Descriptor(cudnnBackendDescriptorType_t type);
  template <typename T>
  void set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, const T& value) {
    set(name, type, 1, &value);
  }
  void set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count,
           const void* values);
  void set(cudnnBackendAttributeName_t name, const Descriptor& other);
  void finalize();
  cudnnBackendDescriptor_t get() const { return handle_.get(); }

 private:
  struct Destroy {
    void operator()(void* descriptor) const { library().destroy_descriptor(descriptor); }
  };
  std::unique_ptr<void, Destroy> handle_;
};

/// The device a plan is for.
Descriptor device_of(int index);
/// The same from a description in cuDNN's JSON: plans can be made, not run, where there is none.
Descriptor device_of(const std::string& json);

class Plan {
 public:
  size_t workspace_bytes() const { return workspace_bytes_; }
  /// `addresses`: of every tensor that has one.
  void run(cudnnHandle_t handle, const std::vector<std::pair<int, void*>>& addresses,
           void* workspace) const;

 private:
  friend class Graph;
  std::vector<Descriptor> kept_;  // what the plan refers to, the plan itself last
  std::vector<std::pair<int, std::shared_ptr<float>>> constants_;
  size_t workspace_bytes_ = 0;
};

class Graph {
 public:
  /// A tensor with an address.
  int tensor(cudnnDataType_t type, const Dims& dims, const Dims& strides);
  /// An intermediate result, which need not exist in memory; dense.
  int hidden(cudnnDataType_t type, const Dims& dims);
  int hidden(cudnnDataType_t type, const Dims& dims, const Dims& strides);
  int constant(float value);

  /// y = mode(x), mode(x, b), or b where t is false else x (BINARY_SELECT); -1: no operand.
  void pointwise(cudnnPointwiseMode_t mode, int x, int b, int t, int y,
                 cudnnDataType_t precision = CUDNN_DATA_FLOAT, int axis = -1);
  void matmul(int a, int b, int c);
  void reduce(cudnnReduceTensorOp_t op, int x, int y);
  void reshape(int x, int y);

  /// The plan that cuDNN's heuristics rank first of those that can be made. Consumes the graph.
  Plan build(Descriptor device);

 private:
  int add_tensor(cudnnDataType_t type, const Dims& dims, const Dims& strides, bool is_virtual,
                 bool by_value);
  const Descriptor& at(int tensor) const { return tensors_.at(static_cast<size_t>(tensor)); }

  std::vector<Descriptor> tensors_, operations_;
  std::vector<Descriptor> details_;  // what the operations refer to
  std::vector<std::pair<int, std::shared_ptr<float>>> constants_;
};

}  // namespace lh::cuda::cudnn
