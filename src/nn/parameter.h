// Trainable tensors: their names, their f32 masters and the copies that the model computes with.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "autograd/variable.h"

namespace lh {

/// What a parameter is, which decides its optimizer and weight decay by default.
enum class ParameterKind : uint8_t { kMatrix, kEmbedding, kHead, kNorm, kBias };

/// How a fresh parameter is filled.
struct Init {
  enum class Kind : uint8_t { kNormal, kConstant } kind = Kind::kConstant;
  double value = 0;  // standard deviation, or the constant

  static Init normal(double std) { return {Kind::kNormal, std}; }
  static Init constant(double value) { return {Kind::kConstant, value}; }
};

struct Parameter {
  std::string name;  // dotted, as in Hugging Face checkpoints: "model.layers.0.mlp.up_proj.weight"
  ParameterKind kind = ParameterKind::kMatrix;
  Tensor master;      // f32 (f64 in fp64 models): what the optimizer updates and checkpoints hold
  Variable variable;  // what ops read; its value is `master` itself, or a bf16 copy of it

  const Shape& shape() const { return variable.value().shape(); }
  int64_t numel() const { return variable.value().numel(); }
  /// The bf16 copy, or undefined when the model computes with the master itself.
  Tensor compute_copy() const;

  /// Where there is a compute copy, keeps elements [begin, end) of the master alone, as a vector: all that a process
  /// updates which shares the optimizer with others.
  void keep_master_part(int64_t begin, int64_t end);
  bool has_whole_master() const { return master.numel() == numel(); }
  /// Takes `whole`, of the parameter's shape and the master's dtype, as far as the master goes, and all of it for
  /// the compute copy.
  void set(const Tensor& whole);

 private:
  int64_t master_begin_ = 0;
};

/// Owns a model's parameters, in creation order. Names are unique.
class ParameterStore {
 public:
  /// `compute` is what ops read: f32, bf16 (masters stay f32), or f64 (masters are f64).
  ParameterStore(DType compute, uint64_t seed, Device device = kCpuDevice)
      : compute_(compute), seed_(seed), device_(device) {}
  ParameterStore(const ParameterStore&) = delete;
  ParameterStore& operator=(const ParameterStore&) = delete;

  /// Normal values are a function of (seed, name, position): adding a parameter elsewhere, or
  /// sharding, changes none of them.
  Parameter& create(std::string name, const Shape& shape, ParameterKind kind, Init init);

  Parameter* find(std::string_view name) const;  // nullptr when absent
  const std::vector<std::unique_ptr<Parameter>>& all() const { return parameters_; }
  int64_t count() const;  // scalars
  DType compute_dtype() const { return compute_; }
  Device device() const { return device_; }
  void zero_grad();

 private:
  DType compute_;
  uint64_t seed_;
  Device device_;
  std::vector<std::unique_ptr<Parameter>> parameters_;
};

}  // namespace lh
