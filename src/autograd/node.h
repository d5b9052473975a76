// One recorded op. Internal to autograd: ops use variable.h only.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "autograd/variable.h"

namespace lh {

/// Where the gradient of one input goes: an earlier node's output, a leaf, or nowhere.
struct Edge {
  std::shared_ptr<Node> node;
  int output = 0;
  std::shared_ptr<LeafGradient> leaf;
};

class Node {
 public:
  struct Output {
    Shape shape;
    DType dtype;
    Device device;
  };

  static Edge edge_to(const Variable& variable) {
    if (!variable.requires_grad()) return {};
    return {variable.node_, variable.output_, variable.leaf_};
  }

  /// Adds `gradient` to the sum for output i, in place when no one else holds the buffer.
  void add_gradient(int i, Tensor gradient);

  /// Drops everything kept for backward, so that memory falls while the pass goes on.
  void release();

  const char* name = "";
  uint64_t id = 0;  // creation order: consumers have larger ids than producers
  std::vector<Edge> inputs;
  std::vector<std::shared_ptr<LeafGradient>> captured;  // leaves besides the inputs it may add to
  std::vector<Output> outputs;
  std::vector<Tensor> d_outputs;
  BackwardFunction backward;
  std::function<Tensor()> recompute;
  Tensor recomputed;  // value of output 0, between the first use in backward and release()
  bool released = false;
};

/// a += b, reusing a's buffer when it is this handle's alone. Either may be undefined.
void accumulate(Tensor& a, Tensor b);

void observe(const char* name, bool backward, const Tensor& tensor);

}  // namespace lh
