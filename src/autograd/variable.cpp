#include "autograd/variable.h"

#include <atomic>
#include <string>

#include "autograd/node.h"
#include "backend/elementwise.h"

namespace lh {
namespace {

thread_local bool t_grad_enabled = true;
thread_local OpObserver t_observer;
thread_local LeafLog* t_leaf_log = nullptr;
std::atomic<uint64_t> g_next_id{1};

}  // namespace

Variable Variable::leaf(Tensor value) {
  const DType dtype = value.dtype() == DType::kF64 ? DType::kF64 : DType::kF32;
  return leaf(std::move(value), dtype);
}

Variable Variable::leaf(Tensor value, DType grad_dtype) {
  LH_CHECK(is_floating(value.dtype()), "[leaf] expected a floating tensor, got {}", value.str());
  Variable result(std::move(value));
  result.leaf_ = std::make_shared<LeafGradient>();
  result.leaf_->shape = result.shape();
  result.leaf_->dtype = grad_dtype;
  result.leaf_->device = result.device();
  return result;
}

void Variable::set_frozen(bool frozen) {
  LH_CHECK(leaf_ != nullptr, "[set_frozen] only leaves can be frozen");
  leaf_->is_wanted = !frozen;
}

Tensor Variable::grad() const {
  LH_CHECK(leaf_ != nullptr, "[grad] only leaves keep a gradient");
  return leaf_->holds_sum ? leaf_->buffer : Tensor();
}

Tensor Variable::grad_or_zeros() const {
  LH_CHECK(leaf_ != nullptr, "[grad] only leaves keep a gradient");
  if (leaf_->holds_sum) return leaf_->buffer;
  if (!leaf_->buffer.defined()) {
    const MemoryScope scope(MemoryOwner::kGradients);
    leaf_->buffer = Tensor::empty(leaf_->shape, leaf_->dtype, leaf_->device);
  }
  LH_DISPATCH(leaf_->device, "grad", fill(leaf_->buffer, 0));
  leaf_->holds_sum = true;
  return leaf_->buffer;
}

void Variable::zero_grad() {
  if (leaf_ != nullptr) leaf_->holds_sum = leaf_->is_final = false;
}

bool grad_enabled() {
  return t_grad_enabled;
}

GradMode::GradMode(bool enabled) : previous_(t_grad_enabled) {
  t_grad_enabled = enabled;
}
GradMode::~GradMode() {
  t_grad_enabled = previous_;
}

LeafLog::LeafLog() : outer_(t_leaf_log) {
  t_leaf_log = this;
}
LeafLog::~LeafLog() {
  t_leaf_log = outer_;
}

void set_op_observer(OpObserver observer) {
  t_observer = std::move(observer);
}

void observe(const char* name, bool backward, const Tensor& tensor) {
  if (!t_observer || !tensor.defined()) return;
  t_observer(backward ? (std::string("gradient of ") + name).c_str() : name, tensor);
}

std::vector<Variable> record_outputs(const char* name, std::span<const Variable> inputs,
                                     std::vector<Tensor> outputs, BackwardFunction backward,
                                     std::function<Tensor()> recompute,
                                     const std::vector<std::shared_ptr<LeafGradient>>* captured) {
  std::vector<Variable> results;
  results.reserve(outputs.size());
  for (const Tensor& output : outputs) {
    observe(name, false, output);
    results.emplace_back(output);
  }
  bool wanted = captured != nullptr;
  for (const Variable& input : inputs) {
    if (!input.requires_grad()) continue;
    wanted = true;
    if (t_leaf_log != nullptr && input.leaf_ != nullptr) t_leaf_log->leaves.push_back(input.leaf_);
  }
  if (!t_grad_enabled || !wanted) return results;

  auto node = std::make_shared<Node>();
  node->name = name;
  node->id = g_next_id.fetch_add(1, std::memory_order_relaxed);
  for (const Variable& input : inputs) node->inputs.push_back(Node::edge_to(input));
  for (const Tensor& output : outputs)
    node->outputs.push_back({output.shape(), output.dtype(), output.device()});
  node->d_outputs.resize(outputs.size());
  if (captured != nullptr) node->captured = *captured;
  node->backward = std::move(backward);
  node->recompute = std::move(recompute);
  for (size_t i = 0; i < results.size(); ++i) {
    results[i].node_ = node;
    results[i].output_ = static_cast<int>(i);
  }
  return results;
}

Variable record(const char* name, std::span<const Variable> inputs, Tensor output,
                BackwardFunction backward) {
  return record_outputs(name, inputs, {std::move(output)}, std::move(backward)).front();
}

Variable record(const char* name, std::initializer_list<Variable> inputs, Tensor output,
                BackwardFunction backward) {
  return record(name, std::span(inputs.begin(), inputs.size()), std::move(output),
                std::move(backward));
}

Variable record_cheap(const char* name, std::initializer_list<Variable> inputs, Tensor output,
                      BackwardFunction backward, std::function<Tensor()> recompute) {
  return record_outputs(name, std::span(inputs.begin(), inputs.size()), {std::move(output)},
                        std::move(backward), std::move(recompute))
      .front();
}

bool will_record(std::initializer_list<Variable> inputs) {
  if (!t_grad_enabled) return false;
  for (const Variable& input : inputs)
    if (input.requires_grad()) return true;
  return false;
}

Saved::Saved(const Variable& variable) {
  if (variable.node_ != nullptr && variable.node_->recompute) node_ = variable.node_;
  else tensor_ = variable.value_;
}

Tensor Saved::get() const {
  if (node_ == nullptr) return tensor_;
  LH_CHECK(!node_->released, "[{}] its history was freed by an earlier backward()", node_->name);
  if (!node_->recomputed.defined()) {
    const GradMode off(false);
    node_->recomputed = node_->recompute();
  }
  return node_->recomputed;
}

}  // namespace lh
