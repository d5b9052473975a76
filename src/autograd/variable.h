// Reverse-mode automatic differentiation on an eager tape. An op computes its result at once and,
// when a gradient will be wanted, records a node with the function that maps gradients of its
// outputs to gradients of its inputs. backward() (engine.h) walks the nodes, newest first.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "tensor/tensor.h"

namespace lh {

class Node;

/// Where gradients of a leaf collect. The buffer survives zero_grad(), so that a training step
/// allocates nothing for parameters.
struct LeafGradient {
  Tensor buffer;          // allocated at the first contribution, charged to gradients
  bool holds_sum = false;  // false: the buffer's content is old and the next write replaces it
  bool is_final = false;   // someone was told so (engine.h): more before zero_grad() is an error
  bool is_wanted = true;   // false: ops recorded from now on take the leaf for a constant
  Shape shape;
  DType dtype = DType::kF32;
  Device device;
};

/// A tensor with an optional history. Copies share value, history and gradient.
class Variable {
 public:
  Variable() = default;
  /// A constant: no gradient flows into it.
  explicit Variable(Tensor value) : value_(std::move(value)) {}

  /// A leaf whose gradient is wanted; summed in f32 for bf16 and f32 values, in f64 for f64.
  static Variable leaf(Tensor value);
  /// The same with gradients summed in the given dtype.
  static Variable leaf(Tensor value, DType grad_dtype);

  bool defined() const { return value_.defined(); }
  const Tensor& value() const { return value_; }
  const Shape& shape() const { return value_.shape(); }
  int64_t size(int dim) const { return value_.size(dim); }
  DType dtype() const { return value_.dtype(); }
  Device device() const { return value_.device(); }
  bool requires_grad() const {
    return node_ != nullptr || (leaf_ != nullptr && leaf_->is_wanted);
  }

  /// From now on this leaf and its copies are constants, or no longer: no gradient reaches them, though an op may still
  /// compute one.
  void set_frozen(bool frozen);

  /// Gradient of a leaf; undefined when none has arrived since zero_grad().
  Tensor grad() const;
  /// Gradient of a leaf; where none has arrived it is now zeros.
  Tensor grad_or_zeros() const;
  void zero_grad();
  /// What a leaf and all its copies have in common; null when this is none.
  const LeafGradient* leaf_gradient() const { return leaf_.get(); }

  /// The same value without history.
  Variable detach() const { return Variable(value_); }

 private:
  friend class Node;
  friend class Saved;
  friend class Gradients;
  friend std::vector<Variable> record_outputs(const char*, std::span<const Variable>,
                                              std::vector<Tensor>,
                                              std::function<void(class Gradients&)>,
                                              std::function<Tensor()>,
                                              const std::vector<std::shared_ptr<LeafGradient>>*);
  friend void backward(const Variable& root, Tensor seed, const struct BackwardWatch* watch);

  Tensor value_;
  std::shared_ptr<Node> node_;  // producer, when this is not a leaf
  int output_ = 0;              // which of its outputs
  std::shared_ptr<LeafGradient> leaf_;
};

/// What an op's backward function sees: gradients of its outputs, and places for those of its
/// inputs. Inputs are numbered as they were recorded.
class Gradients {
 public:
  explicit Gradients(Node& node);

  /// Gradient of output i; undefined when nothing flowed into it (never for single-output ops).
  const Tensor& output(int i = 0) const { return d_outputs_[static_cast<size_t>(i)]; }
  bool wants(int input) const;

  /// Adds a finished gradient of `input`; ignored when it is not wanted.
  void add(int input, Tensor gradient);

  /// Buffer to write (holds_sum false) or add to (true), so that a matrix product can accumulate
  /// in place. For weights this is the leaf's f32 or f64 buffer.
  struct Target {
    Tensor tensor;
    bool holds_sum;
  };
  Target target(int input);

  /// Buffer in f32 (f64 for f64) to add to: zero-filled when it holds nothing yet.
  Tensor accumulator(int input);

  /// Hands accumulators of narrow non-leaf inputs over; the engine calls it after the function.
  void finish();

 private:
  struct Wide {
    int input;
    Tensor sum;
  };
  Node& node_;
  std::vector<Tensor> d_outputs_;
  std::vector<Wide> wide_;
};

using BackwardFunction = std::function<void(Gradients&)>;

/// Wraps an op's result. Without a gradient to compute it is a constant and `backward` is dropped.
Variable record(const char* name, std::initializer_list<Variable> inputs, Tensor output,
                BackwardFunction backward);
Variable record(const char* name, std::span<const Variable> inputs, Tensor output,
                BackwardFunction backward);

/// For cheap ops (norms, activations): later ops that save this result keep `recompute` instead of
/// the tensor, and the value is made anew once in the backward pass. Recomputation is bitwise equal.
Variable record_cheap(const char* name, std::initializer_list<Variable> inputs, Tensor output,
                      BackwardFunction backward, std::function<Tensor()> recompute);

/// For ops with several differentiable outputs. `captured`, where given: the op is recorded even when no
/// listed input wants a gradient, and may add to those of these leaves (checkpoint(), whose function
/// captures parameters).
std::vector<Variable> record_outputs(
    const char* name, std::span<const Variable> inputs, std::vector<Tensor> outputs,
    BackwardFunction backward, std::function<Tensor()> recompute = nullptr,
    const std::vector<std::shared_ptr<LeafGradient>>* captured = nullptr);

/// Notes the leaves that ops of this thread read while it lives, whether they record history or not.
class LeafLog {
 public:
  LeafLog();
  ~LeafLog();
  LeafLog(const LeafLog&) = delete;
  LeafLog& operator=(const LeafLog&) = delete;

  std::vector<std::shared_ptr<LeafGradient>> leaves;

 private:
  LeafLog* outer_;
};

/// True when record() of these inputs would keep a node.
bool will_record(std::initializer_list<Variable> inputs);

/// A value kept for the backward pass: the tensor, or the recipe to recompute it.
class Saved {
 public:
  Saved() = default;
  explicit Saved(const Variable& variable);
  explicit Saved(Tensor tensor) : tensor_(std::move(tensor)) {}
  Tensor get() const;

 private:
  Tensor tensor_;
  std::shared_ptr<Node> node_;  // set when the producer recomputes
};

/// Whether ops on this thread record history.
bool grad_enabled();

/// Switches recording off (or on) for a scope.
class GradMode {
 public:
  explicit GradMode(bool enabled);
  ~GradMode();
  GradMode(const GradMode&) = delete;
  GradMode& operator=(const GradMode&) = delete;

 private:
  bool previous_;
};

/// Called with every op's name and outputs on this thread, forward and, with "d <name>", backward.
/// Used to find the first non-finite tensor. nullptr clears it.
using OpObserver = std::function<void(const char* name, const Tensor& tensor)>;
void set_op_observer(OpObserver observer);

}  // namespace lh
