// cuDNN's attention: without a device, that cuDNN knows the graphs and has engines for them on a Hopper
// device that is only described to it; on a device, that its results are those of our kernels.
#include <dlfcn.h>
#include <doctest/doctest.h>

#include <cmath>

#include "backend/cuda/attention_cudnn.h"
#include "backend/cuda/cudnn_attention_graph.h"
#include "runtime/gpu.h"
#include "support/compare.h"

namespace {

using namespace lh;
using namespace lh::test;

// What cuDNN reads of an H200 (CUDA's device properties, in the library's JSON).
constexpr const char* kHopper =
    R"({"cudaDeviceId":0,"deviceVer":900,"driverVer":13000,"totalGlobalMem":150754820096,)"
    R"("maxGridSize":[2147483647,65535,65535],"maxBlockSize":[1024,1024,64],"regsPerBlock":65536,)"
    R"("multiProcessorCount":132,"warpSize":32,"maxSharedMemoryPerBlock":49152,)"
    R"("maxSharedMemoryPerBlockOptin":232448,"reservedSharedMemoryPerBlock":1024,)"
    R"("maxRegistersPerSM":65536,"maxCtasPerSM":32,"maxThreadsPerBlock":1024,)"
    R"("maxThreadsPerSM":2048,"pciDeviceId":0,"isTccDriver":0,"supportCoopLaunch":1,)"
    R"("smClockRateKHz":1980000,"memClockRateKHz":3201000,"l2CacheSize":62914560,)"
    R"("deviceName":"NVIDIA H200"})";

/// cuDNN compiles kernels only where there is a driver: the toolkit's stub of it will do.
bool driver_or_stub() {
  return dlopen("libcuda.so.1", RTLD_NOW) != nullptr || dlopen(LH_CUDA_STUB, RTLD_NOW) != nullptr;
}

/// "" when a plan was made; else what cuDNN says.
template <typename Make>
std::string outcome(Make&& make) {
  try {
    make();
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

TEST_CASE("cuDNN has engines for the graphs of attention on a described device") {
  if (!cuda::cudnn_attention_unavailable().empty() || !driver_or_stub()) {
    MESSAGE("SKIPPED: no cuDNN, or no driver and no stub of one");
    return;
  }
  for (const int64_t window : {0, 1024})
    for (const int64_t kv_heads : {8, 2})
      for (const int64_t d : {64, 128}) {
        const cuda::cudnn::AttentionShape shape{
            .batch = 2, .length = 2048, .heads = 8, .kv_heads = kv_heads, .head_dim = d,
            .value_dim = d, .window = window, .q_stride = 8 * d, .k_stride = kv_heads * d,
            .v_stride = kv_heads * d, .out_stride = 8 * d, .d_out_stride = 8 * d,
            .dq_stride = 8 * d, .dk_stride = kv_heads * d, .dv_stride = kv_heads * d, .scale = 0.1f};
        for (const bool backward : {false, true}) {
          CAPTURE(window);
          CAPTURE(kv_heads);
          CAPTURE(d);
          CAPTURE(backward);
          const std::string said = outcome([&] {
            if (backward) attention_backward(shape, cuda::cudnn::device_of(std::string(kHopper)));
            else attention_forward(shape, cuda::cudnn::device_of(std::string(kHopper)));
          });
          CAPTURE(said);
          // The stub answers 34 (CUDA_ERROR_STUB_LIBRARY) to the compiled kernel, the last step.
          CHECK((said.empty() || said.find("cuLibraryLoadData returned error  (34)") !=
                                     std::string::npos));
        }
      }
}

TEST_CASE("cuDNN refuses a graph that is not attention and says so") {
  if (!cuda::cudnn_attention_unavailable().empty()) return;
  const cuda::cudnn::AttentionShape shape{.batch = 1, .length = 64, .heads = 3, .kv_heads = 2,
                                          .head_dim = 7, .value_dim = 64, .q_stride = 21,
                                          .k_stride = 14, .v_stride = 128, .out_stride = 192};
  CHECK(outcome([&] {
          attention_forward(shape, cuda::cudnn::device_of(std::string(kHopper)));
        }).find("[cudnn]") != std::string::npos);
}

TEST_CASE("cuda attention of cuDNN equals that of our kernels") {
  constexpr Device kGpu{DeviceKind::kCuda, 0};
  if (gpu::device_count() == 0 || !cuda::cudnn_attention_unavailable().empty()) {
    MESSAGE("SKIPPED: no CUDA device or no cuDNN");
    return;
  }
  for (const int64_t window : {0, 100})
    for (const int64_t kv_heads : {4, 2})
      for (const int64_t d : {64, 128}) {
        const int64_t batch = 2, length = 320, heads = 4, rows = batch * length;
        const auto made = [&](int64_t h, uint64_t seed) {
          return random_tensor({rows, h, d}, DType::kBF16, seed).to(kGpu);
        };
        const Tensor q = made(heads, 1), k = made(kv_heads, 2), v = made(kv_heads, 3);
        const Tensor d_out = made(heads, 4);
        AttentionPlan plan;
        plan.scale = 1 / std::sqrt(static_cast<double>(d));
        plan.mask.window = window;
        for (int64_t b = 0; b < batch; ++b)
          plan.segments.push_back({b * length, length, b * length, length, 0});
        REQUIRE(cuda::cudnn_attention_takes(plan, {&q, &k, &v, &d_out}));
        std::vector<Tensor> results[2];
        for (const bool cudnn : {false, true}) {
          cuda::choose_cudnn_attention(cudnn);
          Tensor out = Tensor::empty_like(q), dq = Tensor::empty_like(q);
          Tensor dk = Tensor::empty_like(k), dv = Tensor::empty_like(v);
          Tensor lse = Tensor::empty({rows, heads}, DType::kF32, kGpu);
          cuda::attention_forward(q, k, v, plan, out, lse);
          cuda::attention_backward(q, k, v, out, lse, d_out, plan, dq, dk, dv);
          for (const Tensor& t : {out, lse, dq, dk, dv})
            results[cudnn].push_back(t.to(kCpuDevice));
        }
        cuda::choose_cudnn_attention(false);
        for (size_t i = 0; i < results[0].size(); ++i) {
          const auto ours = to_doubles(results[0][i]), theirs = to_doubles(results[1][i]);
          double difference = 0, size = 0;
          for (size_t j = 0; j < ours.size(); ++j) {
            difference += (ours[j] - theirs[j]) * (ours[j] - theirs[j]);
            size += ours[j] * ours[j];
          }
          CAPTURE(i);
          CHECK(std::sqrt(difference / size) < 1e-2);  // two roundings to bf16
        }
      }
}

}  // namespace
