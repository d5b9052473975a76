#include "nn/parameter.h"

#include "backend/elementwise.h"
#include "base/philox.h"

namespace lh {
namespace {

/// FNV-1a: names the random stream of a parameter.
uint64_t stream_of(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325ull;
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3ull;
  return hash;
}

template <typename T>
void fill_normal(Tensor& tensor, double std, uint64_t seed, uint64_t stream) {
  Philox random(seed, stream);
  for (T& value : tensor.span<T>()) value = static_cast<T>(std * random.normal());
}

}  // namespace

Tensor Parameter::compute_copy() const {
  return variable.value().shares_storage(master) ? Tensor() : variable.value();
}

void Parameter::keep_master_part(int64_t begin, int64_t end) {
  if (!compute_copy().defined() || end - begin == numel()) return;
  LH_CHECK(has_whole_master(), "[parameter] {} keeps a part already", name);
  const MemoryScope scope(MemoryOwner::kWeights);
  Tensor part = Tensor::empty({end - begin}, master.dtype(), master.device());
  LH_DISPATCH(part.device(), "parameter",
              copy(master.reshape({numel()}).slice(0, begin, end), part));
  master = part;
  master_begin_ = begin;
}

void Parameter::set(const Tensor& whole) {
  check_shape(whole, shape(), "parameter", name);
  const Tensor here = whole.to(master.device());
  Tensor copy_of_master = compute_copy();
  if (copy_of_master.defined()) LH_DISPATCH(here.device(), "parameter", copy(here, copy_of_master));
  if (here.shares_storage(master)) return;
  const int64_t kept = master.numel();
  Tensor into = master.reshape({kept});
  LH_DISPATCH(here.device(), "parameter",
              copy(here.reshape({numel()}).slice(0, master_begin_, master_begin_ + kept), into));
}

Parameter& ParameterStore::create(std::string name, const Shape& shape, ParameterKind kind,
                                  Init init) {
  LH_CHECK(find(name) == nullptr, "[parameter] '{}' exists already", name);
  auto parameter = std::make_unique<Parameter>();
  parameter->kind = kind;
  const MemoryScope scope(MemoryOwner::kWeights);
  const bool wide = compute_ == DType::kF64;
  const DType dtype = wide ? DType::kF64 : DType::kF32;
  if (device_.is_meta()) {
    parameter->master = Tensor::empty(shape, dtype, device_);
  } else {
    Tensor host = Tensor::empty(shape, dtype);
    const uint64_t stream = stream_of(name);
    if (init.kind == Init::Kind::kConstant) LH_DISPATCH(kCpuDevice, "init", fill(host, init.value));
    else if (wide) fill_normal<double>(host, init.value, seed_, stream);
    else fill_normal<float>(host, init.value, seed_, stream);
    parameter->master = host.to(device_);
  }
  parameter->variable = Variable::leaf(
      compute_ == DType::kBF16 ? Tensor::empty(shape, compute_, device_) : parameter->master);
  parameter->set(parameter->master);
  parameter->name = std::move(name);
  parameters_.push_back(std::move(parameter));
  return *parameters_.back();
}

Parameter* ParameterStore::find(std::string_view name) const {
  for (const auto& parameter : parameters_)
    if (parameter->name == name) return parameter.get();
  return nullptr;
}

int64_t ParameterStore::count() const {
  int64_t total = 0;
  for (const auto& parameter : parameters_) total += parameter->numel();
  return total;
}

void ParameterStore::zero_grad() {
  for (const auto& parameter : parameters_) parameter->variable.zero_grad();
}

}  // namespace lh
