// Parallax: checks, the plan's work items, and the kernels of kernels/attention/parallax.
#include "backend/parallax.h"

#include <cmath>

#include "backend/cuda/attention_decode.h"
#include "backend/cuda/attention_params.h"
#include "backend/elementwise.h"
#include "backend/parallax_operands.h"
#include "kernels/attention/parallax.h"
#include "kernels/attention/parallax_sm90.h"

namespace lh::cuda {
namespace {

/// What training and decoding name alike.
template <typename T, typename Params>
void set_forward(Params& p, const ParallaxInputs& in, const AttentionPlan& plan,
                 const ParallaxResult& result, std::string_view op) {
  set_operands<T>(p, in.q, in.k, in.v, plan, result.out, result.lse, op);
  p.r = pointer<T>(in.r);
  p.intercept = pointer<T>(result.intercept);
  p.probe_mean = pointer<float>(result.probe_mean);
  p.r_stride = row_stride(in.r, op, "r");
  p.intercept_stride = row_stride(result.intercept, op, "intercept");
}

}  // namespace

void parallax_forward(const ParallaxInputs& in, const AttentionPlan& plan,
                      ParallaxResult& result) {
  constexpr const char* kOp = "parallax";
  check_parallax(in, plan, result, kOp);
  // The kernels do not write rows outside every segment.
  if (!cover(query_intervals(plan), in.q.size(0))) {
    fill(result.out, 0);
    fill(result.intercept, 0);
    fill(result.probe_mean, 0);
    fill(result.lse, -INFINITY);
  }
  const Device device = in.q.device();
  dispatch_kernel(in.q.dtype(), kOp, [&]<typename T>() {
    call(kOp,
         {&in.q, &in.r, &in.k, &in.v, &result.out, &result.intercept, &result.lse,
          &result.probe_mean},
         [&](gpu::Stream stream) {
           if (is_decoding(plan)) {
             kernels::ParallaxDecodeParams<kernel_t<T>> p;
             set_forward<T>(p, in, plan, result, kOp);
             const Tensor parts = prepare_decode(p, plan, device);
             return kernels::parallax_decode(p, stream);
           }
           kernels::ParallaxFwdParams<kernel_t<T>> p;
           set_forward<T>(p, in, plan, result, kOp);
           set_rows(p, in.q, in.k, kOp);
           if constexpr (std::is_same_v<T, bf16>) {
             if (gpu::capability(device) == 90 && kernels::parallax_fwd_sm90_supported(p)) {
               p.schedule = schedule_of(plan, kernels::kParallaxFwdSm90Tile, 0, device).view;
               return kernels::parallax_fwd_sm90(p, stream);
             }
           }
           const auto tiles = kernels::parallax_tiles<kernel_t<T>>(p.head_dim, p.value_dim);
           p.schedule = schedule_of(plan, tiles.fwd, 0, device).view;
           kernels::parallax_fwd(p, stream);
         });
  });
}

void parallax_backward(const ParallaxInputs& in, const ParallaxResult& result, const Tensor& d_out,
                       const AttentionPlan& plan, ParallaxGradients& gradients) {
  constexpr const char* kOp = "parallax_backward";
  check_parallax_gradients(in, result, d_out, plan, gradients, kOp);
  auto& [dq, dr, dk, dv] = gradients;
  if (!cover(query_intervals(plan), in.q.size(0))) {
    fill(dq, 0);
    fill(dr, 0);
  }
  if (!cover(key_intervals(plan), in.k.size(0))) {
    fill(dk, 0);
    fill(dv, 0);
  }
  const Device device = in.q.device();
  dispatch_kernel(in.q.dtype(), kOp, [&]<typename T>() {
    kernels::ParallaxBwdParams<kernel_t<T>> p;
    set_forward<T>(p, in, plan, result, kOp);
    set_rows(p, in.q, in.k, kOp);
    set_gradients<T>(p, d_out, dq, dk, dv, kOp);
    p.dr = pointer<T>(dr);
    p.dr_stride = row_stride(dr, kOp, "dr");
    const Tensor stats = workspace(
        kernels::parallax_bwd_workspace(p.query_rows, p.heads) * sizeof(float), device);
    p.stats = reinterpret_cast<float*>(stats.raw());
    call(kOp,
         {&in.q, &in.r, &in.k, &in.v, &result.out, &result.intercept, &result.lse,
          &result.probe_mean, &d_out, &dq, &dr, &dk, &dv},
         [&](gpu::Stream stream) {
           kernels::parallax_bwd_prepare(p, stream);
           if constexpr (std::is_same_v<T, bf16>) {
             if (gpu::capability(device) == 90 && kernels::parallax_bwd_sm90_supported(p)) {
               p.schedule = schedule_of(plan, kernels::kParallaxBwdSm90QueryTile,
                                        kernels::kParallaxBwdSm90KeyTile, device).view;
               return kernels::parallax_bwd_sm90(p, stream);
             }
           }
           const auto tiles = kernels::parallax_tiles<kernel_t<T>>(p.head_dim, p.value_dim);
           p.schedule = schedule_of(plan, tiles.bwd_dq, tiles.bwd_dkv, device).view;
           kernels::parallax_bwd(p, stream);
         });
  });
}

}  // namespace lh::cuda
