#include "autograd/engine.h"

#include <cstring>
#include <optional>
#include <queue>
#include <unordered_map>

#include "autograd/node.h"
#include "backend/elementwise.h"

namespace lh {

void accumulate(Tensor& a, Tensor b) {
  if (!a.defined()) {
    a = std::move(b);
    return;
  }
  check_shape(b, a.shape(), "backward", "gradient");
  check_dtype(b, a.dtype(), "backward", "gradient");
  Tensor out = a.is_sole_owner() ? a : Tensor::empty_like(a);
  LH_DISPATCH(a.device(), "backward", add_scaled(a, 1, b, 1, out));
  a = std::move(out);
}

void Node::add_gradient(int i, Tensor gradient) {
  const Output& output = outputs[static_cast<size_t>(i)];
  check_shape(gradient, output.shape, name, "gradient");
  check_dtype(gradient, output.dtype, name, "gradient");
  accumulate(d_outputs[static_cast<size_t>(i)], std::move(gradient));
}

void Node::release() {
  backward = nullptr;
  recompute = nullptr;
  recomputed = Tensor();
  inputs.clear();
  captured.clear();
  d_outputs.clear();
  released = true;
}

Gradients::Gradients(Node& node) : node_(node), d_outputs_(std::move(node.d_outputs)) {}

bool Gradients::wants(int input) const {
  const Edge& edge = node_.inputs[static_cast<size_t>(input)];
  return edge.node != nullptr || edge.leaf != nullptr;
}

void Gradients::add(int input, Tensor gradient) {
  if (!wants(input)) return;
  observe(node_.name, true, gradient);
  const Edge& edge = node_.inputs[static_cast<size_t>(input)];
  if (edge.node != nullptr) {
    edge.node->add_gradient(edge.output, std::move(gradient));
    return;
  }
  const Target into = target(input);
  Tensor sum = into.tensor;
  if (into.holds_sum && gradient.dtype() != sum.dtype()) {
    Tensor wide = Tensor::empty_like(sum);
    LH_DISPATCH(sum.device(), "backward", copy(gradient, wide));
    gradient = wide;
  }
  if (into.holds_sum) LH_DISPATCH(sum.device(), "backward", add_scaled(sum, 1, gradient, 1, sum));
  else LH_DISPATCH(sum.device(), "backward", copy(gradient, sum));
}

Gradients::Target Gradients::target(int input) {
  const Edge& edge = node_.inputs[static_cast<size_t>(input)];
  LH_CHECK(wants(input), "[{}] input {} wants no gradient", node_.name, input);
  if (edge.leaf != nullptr) {
    LeafGradient& leaf = *edge.leaf;
    LH_CHECK(!leaf.is_final, "[{}] adds to a gradient that was said to be final", node_.name);
    if (!leaf.buffer.defined()) {
      const MemoryScope scope(MemoryOwner::kGradients);
      leaf.buffer = Tensor::empty(leaf.shape, leaf.dtype, leaf.device);
    }
    return {leaf.buffer, std::exchange(leaf.holds_sum, true)};
  }
  const Node::Output& output = edge.node->outputs[static_cast<size_t>(edge.output)];
  Tensor& sum = edge.node->d_outputs[static_cast<size_t>(edge.output)];
  if (!sum.defined()) {
    sum = Tensor::empty(output.shape, output.dtype, output.device);
    return {sum, false};
  }
  if (!sum.is_sole_owner()) {
    Tensor own = Tensor::empty_like(sum);
    LH_DISPATCH(sum.device(), "backward", copy(sum, own));
    sum = own;
  }
  return {sum, true};
}

Tensor Gradients::accumulator(int input) {
  const Edge& edge = node_.inputs[static_cast<size_t>(input)];
  if (edge.node != nullptr) {
    const Node::Output& output = edge.node->outputs[static_cast<size_t>(edge.output)];
    if (output.dtype == DType::kBF16) {
      wide_.push_back({input, Tensor::empty(output.shape, DType::kF32, output.device)});
      LH_DISPATCH(output.device, "backward", fill(wide_.back().sum, 0));
      return wide_.back().sum;
    }
  }
  Target into = target(input);
  if (!into.holds_sum) LH_DISPATCH(into.tensor.device(), "backward", fill(into.tensor, 0));
  return into.tensor;
}

void Gradients::finish() {
  for (Wide& wide : wide_) {
    Tensor narrow = Tensor::empty(wide.sum.shape(), DType::kBF16, wide.sum.device());
    LH_DISPATCH(narrow.device(), "backward", copy(wide.sum, narrow));
    add(wide.input, std::move(narrow));
  }
  wide_.clear();
}

namespace {

/// How many nodes of a graph have yet to add to each leaf.
class LeafUses {
 public:
  explicit LeafUses(const Node* root) {
    std::unordered_set<const Node*> seen = {root};
    std::vector<const Node*> open = {root};
    while (!open.empty()) {
      const Node* node = open.back();
      open.pop_back();
      each_leaf(*node, [&](const std::shared_ptr<LeafGradient>& leaf) { ++left_[leaf.get()]; });
      for (const Edge& edge : node->inputs)
        if (edge.node != nullptr && seen.insert(edge.node.get()).second)
          open.push_back(edge.node.get());
    }
  }

  std::unordered_set<const LeafGradient*> leaves() const {
    std::unordered_set<const LeafGradient*> all;
    for (const auto& [leaf, count] : left_) all.insert(leaf);
    return all;
  }

  /// This node has added all it will.
  void leave(const Node& node, const BackwardWatch& watch) {
    each_leaf(node, [&](const std::shared_ptr<LeafGradient>& leaf) {
      if (--left_[leaf.get()] > 0) return;
      leaf->is_final = true;
      watch.is_final(leaf.get());
    });
  }

 private:
  template <typename F>
  static void each_leaf(const Node& node, F&& function) {
    for (const Edge& edge : node.inputs)
      if (edge.leaf != nullptr) function(edge.leaf);
    for (const auto& leaf : node.captured) function(leaf);
  }

  std::unordered_map<const LeafGradient*, int64_t> left_;
};

}  // namespace

void backward(const Variable& root, Tensor seed, const BackwardWatch* watch) {
  LH_CHECK(root.requires_grad(), "[backward] the root does not depend on any leaf");
  if (!seed.defined()) {
    LH_CHECK(root.value().numel() == 1, "[backward] a root of shape {} needs a seed gradient",
             root.shape().str());
    seed = Tensor::empty_like(root.value());
    LH_DISPATCH(seed.device(), "backward", fill(seed, 1));
  }
  check_shape(seed, root.shape(), "backward", "seed");
  LH_CHECK(root.node_ != nullptr, "[backward] the root is itself a leaf");
  LH_CHECK(!root.node_->released, "[backward] the history of this value was already freed");

  std::optional<LeafUses> uses;
  if (watch != nullptr) {
    uses.emplace(root.node_.get());
    watch->reaches(uses->leaves());
  }
  // Newest first: when a node's turn comes, all its consumers have contributed.
  const auto older = [](const std::shared_ptr<Node>& a, const std::shared_ptr<Node>& b) {
    return a->id < b->id;
  };
  std::priority_queue<std::shared_ptr<Node>, std::vector<std::shared_ptr<Node>>, decltype(older)>
      ready(older);
  root.node_->add_gradient(root.output_, std::move(seed));
  ready.push(root.node_);
  const GradMode off(false);
  while (!ready.empty()) {
    const std::shared_ptr<Node> node = ready.top();
    while (!ready.empty() && ready.top() == node) ready.pop();  // pushed once per consumer
    LH_CHECK(!node->released, "[{}] its history was freed by an earlier backward()", node->name);
    Gradients gradients(*node);
    node->backward(gradients);
    gradients.finish();
    for (const Edge& edge : node->inputs) {
      if (edge.node == nullptr) continue;
      bool reached = false;
      for (const Tensor& gradient : edge.node->d_outputs) reached |= gradient.defined();
      if (reached) ready.push(edge.node);
    }
    if (uses) uses->leave(*node, *watch);
    node->release();
  }
}

}  // namespace lh
