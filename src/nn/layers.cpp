#include "nn/layers.h"

#include "ops/elementwise.h"
#include "ops/linear.h"
#include "ops/rms_norm.h"

namespace lh {

Linear::Linear(ParameterStore& store, const std::string& prefix, int64_t in, int64_t out, bool bias,
               double init_std)
    : weight_(&store.create(prefix + ".weight", {out, in}, ParameterKind::kMatrix,
                            Init::normal(init_std))) {
  if (bias)
    bias_ = &store.create(prefix + ".bias", {out}, ParameterKind::kBias, Init::constant(0));
}

Variable Linear::operator()(const Variable& x) const {
  return linear(x, weight_->variable, bias_ == nullptr ? Variable() : bias_->variable);
}

RmsNorm::RmsNorm(ParameterStore& store, const std::string& prefix, int64_t d, double eps,
                 double init)
    : weight_(&store.create(prefix + ".weight", {d}, ParameterKind::kNorm, Init::constant(init))),
      eps_(eps) {}

Variable RmsNorm::operator()(const Variable& x) const {
  return rms_norm(x, weight_->variable, eps_);
}

SwigluMlp::SwigluMlp(ParameterStore& store, const std::string& prefix, int64_t d, int64_t inner,
                     bool bias, double init_std, double down_init_std)
    : gate_(store, prefix + ".gate_proj", d, inner, bias, init_std),
      up_(store, prefix + ".up_proj", d, inner, bias, init_std),
      down_(store, prefix + ".down_proj", inner, d, bias, down_init_std) {}

Variable SwigluMlp::operator()(const Variable& x) const {
  return down_(swiglu(gate_(x), up_(x)));
}

}  // namespace lh
