// The small modules a decoder is made of. Each creates its parameters in a store under a prefix.
#pragma once

#include <string>

#include "nn/parameter.h"

namespace lh {

/// y = x W^T (+ b); W [out, in], named <prefix>.weight and <prefix>.bias.
class Linear {
 public:
  Linear(ParameterStore& store, const std::string& prefix, int64_t in, int64_t out, bool bias,
         double init_std);
  Variable operator()(const Variable& x) const;

 private:
  Parameter* weight_;
  Parameter* bias_ = nullptr;
};

/// RMSNorm over the last dimension, weight [d] starting at `init`.
class RmsNorm {
 public:
  RmsNorm(ParameterStore& store, const std::string& prefix, int64_t d, double eps,
          double init = 1);
  Variable operator()(const Variable& x) const;

 private:
  Parameter* weight_;
  double eps_;
};

/// down(silu(gate(x)) * up(x)) (Shazeer 2020), Hugging Face names gate_proj, up_proj, down_proj.
class SwigluMlp {
 public:
  SwigluMlp(ParameterStore& store, const std::string& prefix, int64_t d, int64_t inner, bool bias,
            double init_std, double down_init_std);
  Variable operator()(const Variable& x) const;

 private:
  Linear gate_, up_, down_;
};

}  // namespace lh
