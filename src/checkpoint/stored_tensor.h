// A tensor on its way into a file.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "optim/optimizer.h"

namespace lh {

/// `read` gives its values, contiguous on any device and in any shape of as many elements, when their turn comes.
struct StoredTensor {
  std::string name;
  DType dtype;
  Shape shape;
  std::function<Tensor()> read = nullptr;

  size_t bytes() const { return static_cast<size_t>(shape.numel()) * dtype_size(dtype); }
};

inline StoredTensor stored(const NamedTensor& named) {
  const Tensor tensor = named.tensor;
  return {named.name, tensor.dtype(), tensor.shape(), [tensor] { return tensor; }};
}
inline std::vector<StoredTensor> stored(const std::vector<NamedTensor>& all) {
  std::vector<StoredTensor> tensors;
  for (const NamedTensor& named : all) tensors.push_back(stored(named));
  return tensors;
}

}  // namespace lh
