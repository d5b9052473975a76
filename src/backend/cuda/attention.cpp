// Softmax attention: checks, the plan's work items, and the kernels of kernels/attention.
#include "backend/attention.h"

#include <cmath>
#include <cstdlib>

#include "backend/attention_operands.h"
#include "backend/cuda/attention_cudnn.h"
#include "backend/cuda/attention_decode.h"
#include "backend/cuda/attention_params.h"
#include "backend/elementwise.h"
#include "kernels/attention/attention.h"
#include "kernels/attention/attention_sm90.h"
#include "kernels/attention/closed_runs.h"
#include "kernels/attention/open_keys.h"

namespace lh::cuda {
namespace {

bool& cudnn_choice() {
  static bool chosen = [] {
    const char* value = std::getenv("LH_ATTENTION");
    const std::string_view wanted = value == nullptr ? "own" : value;
    if (wanted == "own" || wanted.empty()) return false;
    if (wanted != "cudnn")
      fail<ConfigError>("LH_ATTENTION: expected own or cudnn, got '{}'", wanted);
    if (!cudnn_attention_unavailable().empty())
      fail<ConfigError>("LH_ATTENTION=cudnn: {}", cudnn_attention_unavailable());
    return true;
  }();
  return chosen;
}

/// The plan says that keys are closed, so that it pays to look for them.
bool closes_keys(const AttentionPlan& plan, const Tensor& bias) {
  return bias.defined() && plan.mask.bias_closes && bias.numel() > 0;
}

/// Memory for copies of the open keys. Like all of this file it is taken before the call, where a plan
/// counts it.
template <typename T, typename Params>
Tensor open_keys_memory(const Params& p, const AttentionPlan& plan, const Tensor& bias) {
  // A mask with a window would need the positions of the copies.
  if (!closes_keys(plan, bias) || plan.mask.window > 0) return {};
  return workspace(kernels::attention_open_keys_bytes<kernel_t<T>>(p.key_rows, p.kv_heads,
                                                                   p.head_dim, p.value_dim),
                   bias.device());
}

/// Copies the open keys for the passes over queries, if there is memory for them.
template <typename T, typename Params>
void copy_open_keys(Params& p, const Tensor& memory, gpu::Stream stream) {
  if (!memory.defined()) return;
  kernels::AttentionOpenKeysParams<kernel_t<T>> from;
  from.k = p.k;
  from.v = p.v;
  from.bias = p.bias;
  from.k_stride = p.k_stride;
  from.v_stride = p.v_stride;
  from.key_rows = p.key_rows;
  from.kv_heads = p.kv_heads;
  from.head_dim = p.head_dim;
  from.value_dim = p.value_dim;
  from.workspace = memory.raw();
  p.open = kernels::attention_open_keys(from, stream);
}

/// Memory for runs of closed keys.
template <typename Params>
Tensor closed_runs_memory(const Params& p, const AttentionPlan& plan, const Tensor& bias) {
  if (!closes_keys(plan, bias)) return {};
  return workspace(kernels::attention_closed_runs_bytes(p.key_rows, p.kv_heads), bias.device());
}

/// Finds runs of closed keys, so that the pass over keys leaves out whole tiles of them.
template <typename Params>
void find_closed_runs(Params& p, const Tensor& memory, gpu::Stream stream) {
  if (!memory.defined()) return;
  auto* runs = reinterpret_cast<uint8_t*>(memory.raw());
  kernels::attention_closed_runs({p.bias, runs, p.key_rows, p.kv_heads}, stream);
  p.closed_runs = runs;
}

}  // namespace

bool cudnn_attention_chosen() {
  return cudnn_choice();
}

void choose_cudnn_attention(bool chosen) {
  cudnn_choice() = chosen;
}

void attention_forward(const Tensor& q, const Tensor& k, const Tensor& v,
                       const AttentionPlan& plan, Tensor& out, Tensor& lse, const Tensor& bias) {
  check_attention(q, k, v, plan, out, lse, "attention");
  if (bias.defined()) check_attention_bias(bias, k, "attention", "bias");
  else if (cudnn_attention_chosen() && cudnn_attention_takes(plan, {&q, &k, &v, &out}))
    return cudnn_attention_forward(q, k, v, plan, out, lse);
  // The kernels do not write rows outside every segment.
  if (!cover(query_intervals(plan), q.size(0))) {
    fill(out, 0);
    fill(lse, -INFINITY);
  }
  dispatch_kernel(q.dtype(), "attention", [&]<typename T>() {
    if (is_decoding(plan)) {
      kernels::AttentionDecodeParams<kernel_t<T>> p;
      set_operands<T>(p, q, k, v, plan, out, lse, "attention");
      p.bias = pointer<float>(bias);
      call("attention", {&q, &k, &v, &out, &lse, &bias}, [&](gpu::Stream stream) {
        const Tensor parts = prepare_decode(p, plan, q.device());
        kernels::attention_decode(p, stream);
      });
      return;
    }
    kernels::AttentionFwdParams<kernel_t<T>> p;
    set_operands<T>(p, q, k, v, plan, out, lse, "attention");
    set_rows(p, q, k, "attention");
    p.bias = pointer<float>(bias);
    const Tensor open_keys = open_keys_memory<T>(p, plan, bias);
    call("attention", {&q, &k, &v, &out, &lse, &bias}, [&](gpu::Stream stream) {
      copy_open_keys<T>(p, open_keys, stream);
      if constexpr (std::is_same_v<T, bf16>) {
        if (gpu::capability(q.device()) == 90 && kernels::attention_fwd_sm90_supported(p)) {
          p.schedule = schedule_of(plan, kernels::kAttentionFwdSm90Tile, 0, q.device()).view;
          return kernels::attention_fwd_sm90(p, stream);
        }
      }
      const auto tiles = kernels::attention_tiles<kernel_t<T>>(p.head_dim, p.value_dim);
      p.schedule = schedule_of(plan, tiles.fwd, 0, q.device()).view;
      kernels::attention_fwd(p, stream);
    });
  });
}

void attention_backward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
                        const Tensor& lse, const Tensor& d_out, const AttentionPlan& plan,
                        Tensor& dq, Tensor& dk, Tensor& dv, const Tensor& bias, Tensor* dbias) {
  check_attention(q, k, v, plan, out, lse, "attention_backward");
  check_attention(dq, dk, dv, plan, d_out, lse, "attention_backward");
  check_like(d_out, out, "attention_backward", "d_out");
  check_like(dq, q, "attention_backward", "dq");
  check_like(dk, k, "attention_backward", "dk");
  check_like(dv, v, "attention_backward", "dv");
  if (bias.defined()) check_attention_bias(bias, k, "attention_backward", "bias");
  if (dbias != nullptr) check_attention_bias(*dbias, k, "attention_backward", "dbias");
  if (!bias.defined() && cudnn_attention_chosen() &&
      cudnn_attention_takes(plan, {&q, &k, &v, &out, &d_out, &dq, &dk, &dv}))
    return cudnn_attention_backward(q, k, v, out, lse, d_out, plan, dq, dk, dv);
  if (!cover(query_intervals(plan), q.size(0))) fill(dq, 0);
  if (!cover(key_intervals(plan), k.size(0))) {
    fill(dk, 0);
    fill(dv, 0);
    if (dbias != nullptr) fill(*dbias, 0);
  }
  dispatch_kernel(q.dtype(), "attention_backward", [&]<typename T>() {
    kernels::AttentionBwdParams<kernel_t<T>> p;
    set_operands<T>(p, q, k, v, plan, out, lse, "attention_backward");
    set_rows(p, q, k, "attention_backward");
    set_gradients<T>(p, d_out, dq, dk, dv, "attention_backward");
    p.bias = pointer<float>(bias);
    if (dbias != nullptr) p.dbias = pointer<float>(*dbias);
    const Tensor stats =
        workspace(kernels::attention_bwd_workspace(p.query_rows, p.heads) * sizeof(float),
                  q.device());
    p.stats = reinterpret_cast<float*>(stats.raw());
    const Tensor open_keys = open_keys_memory<T>(p, plan, bias);
    const Tensor closed_runs = closed_runs_memory(p, plan, bias);
    const std::initializer_list<const Tensor*> operands = {&q,   &k,  &v,  &out, &lse,
                                                           &d_out, &dq, &dk, &dv,  &bias};
    call("attention_backward", operands, [&](gpu::Stream stream) {
      kernels::attention_bwd_prepare(p, stream);
      copy_open_keys<T>(p, open_keys, stream);
      find_closed_runs(p, closed_runs, stream);
      if constexpr (std::is_same_v<T, bf16>) {
        if (gpu::capability(q.device()) == 90 && kernels::attention_bwd_sm90_supported(p)) {
          p.schedule = schedule_of(plan, kernels::kAttentionBwdSm90QueryTile,
                                   kernels::kAttentionBwdSm90KeyTile, q.device()).view;
          return kernels::attention_bwd_sm90(p, stream);
        }
      }
      const auto tiles = kernels::attention_tiles<kernel_t<T>>(p.head_dim, p.value_dim);
      p.schedule = schedule_of(plan, tiles.bwd_dq, tiles.bwd_dkv, q.device()).view;
      kernels::attention_bwd(p, stream);
    });
  });
}

}  // namespace lh::cuda
