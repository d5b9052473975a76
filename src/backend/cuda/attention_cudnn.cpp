// Attention through cuDNN's operation graphs. cuDNN accepts the graphs and compiles kernels for them
// where a device is only described (tests/backend/cudnn_test.cpp); they have not yet run on a device.
#include "backend/cuda/attention_cudnn.h"

#include <map>
#include <mutex>

#include "backend/cuda/cudnn_attention_graph.h"
#include "backend/cuda/kernel_call.h"

namespace lh::cuda {
namespace {

using cudnn::AttentionShape;

cudnnHandle_t handle_of(Device device) {
  static std::mutex mutex;
  static auto* handles = new std::map<int, cudnnHandle_t>;
  const std::lock_guard lock(mutex);
  cudnnHandle_t& handle = (*handles)[device.index];
  if (handle == nullptr) {
    cudnn::check(cudnn::library().create(&handle), "start");
    cudnn::check(cudnn::library().set_stream(handle, gpu::stream(device)), "stream");
  }
  return handle;
}

/// The graph of a shape on a device, made once.
template <typename Graph, Graph (*kMake)(const AttentionShape&, cudnn::Descriptor)>
const Graph& cached(const AttentionShape& shape, Device device) {
  static std::mutex mutex;
  static auto* graphs = new std::map<std::pair<int, AttentionShape>, Graph>;
  const std::lock_guard lock(mutex);
  const std::pair key{static_cast<int>(device.index), shape};
  const auto found = graphs->find(key);
  if (found != graphs->end()) return found->second;
  return graphs->emplace(key, kMake(shape, cudnn::device_of(device.index))).first->second;
}

int64_t row_stride(const Tensor& t) {
  return row_view(t, 1, "attention", "cudnn").stride;
}

AttentionShape shape_of(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
                        const AttentionPlan& plan) {
  return {.batch = static_cast<int64_t>(plan.segments.size()),
          .length = plan.segments.front().query_length,
          .heads = q.size(1),
          .kv_heads = k.size(1),
          .head_dim = q.size(2),
          .value_dim = v.size(2),
          .window = plan.mask.window,
          .q_stride = row_stride(q),
          .k_stride = row_stride(k),
          .v_stride = row_stride(v),
          .out_stride = row_stride(out),
          .scale = static_cast<float>(plan.scale)};
}

bool fits(const Tensor& t) {
  constexpr int64_t kGroup = 8;  // bf16 values in 16 bytes
  return t.dtype() == DType::kBF16 && t.rank() == 3 && t.size(2) % kGroup == 0 && t.size(2) > 0 &&
         t.size(2) <= 128 && row_stride(t) % kGroup == 0 &&
         reinterpret_cast<uintptr_t>(t.raw()) % 16 == 0;
}

}  // namespace

const std::string& cudnn_attention_unavailable() {
  return cudnn::unavailable_reason();
}

bool cudnn_attention_takes(const AttentionPlan& plan, std::initializer_list<const Tensor*> tensors) {
  // A plan counts the scratch memory of our own kernels.
  if ((*tensors.begin())->device().is_meta()) return false;
  if (!cudnn_attention_unavailable().empty() || plan.segments.empty() || plan.mask.sinks != 0)
    return false;
  const int64_t length = plan.segments.front().query_length;
  int64_t begin = 0;
  for (const AttentionSegment& s : plan.segments) {
    if (s.query_length != length || s.key_length != length || s.query_offset != 0 ||
        s.query_begin != begin || s.key_begin != begin)
      return false;
    begin += length;
  }
  for (const Tensor* t : tensors)
    if (!fits(*t) || t->size(0) != begin) return false;
  return length > 0 && gpu::capability((*tensors.begin())->device()) >= 80;
}

void cudnn_attention_forward(const Tensor& q, const Tensor& k, const Tensor& v,
                             const AttentionPlan& plan, Tensor& out, Tensor& lse) {
  const Device device = q.device();
  call("attention", {&q, &k, &v, &out}, [&](gpu::Stream) {
    const auto& graph = cached<cudnn::AttentionForward, cudnn::attention_forward>(
        shape_of(q, k, v, out, plan), device);
    const Tensor scratch = workspace(graph.plan.workspace_bytes(), device);
    graph.plan.run(handle_of(device),
                   {{graph.q, q.raw()},
                    {graph.k, k.raw()},
                    {graph.v, v.raw()},
                    {graph.out, out.raw()},
                    {graph.lse, lse.raw()}},
                   scratch.raw());
  });
}

void cudnn_attention_backward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
                              const Tensor& lse, const Tensor& d_out, const AttentionPlan& plan,
                              Tensor& dq, Tensor& dk, Tensor& dv) {
  const Device device = q.device();
  AttentionShape shape = shape_of(q, k, v, out, plan);
  shape.d_out_stride = row_stride(d_out);
  shape.dq_stride = row_stride(dq);
  shape.dk_stride = row_stride(dk);
  shape.dv_stride = row_stride(dv);
  call("attention_backward", {&q, &k, &v, &d_out}, [&](gpu::Stream) {
    const auto& graph =
        cached<cudnn::AttentionBackward, cudnn::attention_backward>(shape, device);
    const Tensor scratch = workspace(graph.plan.workspace_bytes(), device);
    const Tensor row_sums = Tensor::empty({q.size(0) * q.size(1)}, DType::kF32, device);
    const Tensor dq_sum = Tensor::empty(q.shape(), DType::kF32, device);
    graph.plan.run(handle_of(device),
                   {{graph.q, q.raw()},
                    {graph.k, k.raw()},
                    {graph.v, v.raw()},
                    {graph.out, out.raw()},
                    {graph.lse, lse.raw()},
                    {graph.d_out, d_out.raw()},
                    {graph.dq, dq.raw()},
                    {graph.dk, dk.raw()},
                    {graph.dv, dv.raw()},
                    {graph.row_sums, row_sums.raw()},
                    {graph.dq_sum, dq_sum.raw()}},
                   scratch.raw());
  });
}

}  // namespace lh::cuda
