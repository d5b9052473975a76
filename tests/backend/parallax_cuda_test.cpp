// Parallax of the CUDA backend against the CPU's on the same inputs, and both against fp64, as
// cuda_test.cpp; the decoding path and plans that take other documents.
#include "backend/cuda_case.h"

#include "backend/cuda/attention_decode.h"
#include "backend/parallax.h"
#include "backend/parallax_reference.h"

namespace {

using namespace lh;
using namespace lh::test;

/// Of the device's results against fp64 beyond twice the CPU's error.
double slack(DType dtype) {
  return dtype == DType::kBF16 ? 4e-3 : 2e-5;
}

Case parallax_case(int64_t query_rows, int64_t key_rows, int64_t heads,
                   int64_t kv_heads, int64_t d) {
  const Shape qs{query_rows, heads, d}, ks{key_rows, kv_heads, d}, sums{query_rows, heads};
  return {{normal(qs, 1), normal(qs, 2, 0.5), normal(ks, 3), normal(ks, 4), normal(qs, 5)},
          {normal(qs, 6), normal(qs, 7), normal(sums, 8), normal(sums, 9), normal(qs, 10),
           normal(qs, 11), normal(ks, 12), normal(ks, 13)},
          {false, false, true, true, false, false, false, false}};
}

}  // namespace

TEST_CASE("cuda parallax equals the CPU's over packed documents windows sinks and caches") {
  if (no_device()) return;
  AttentionPlan packed;
  packed.segments = {{0, 30, 0, 30, 0}, {30, 1, 30, 1, 0}, {31, 40, 31, 40, 0}};
  AttentionPlan windowed = packed;
  windowed.mask = {7, 2};
  AttentionPlan cached;  // two new queries after 69 keys; rows outside every segment are 0
  cached.segments = {{3, 2, 0, 71, 69}};
  for (const DType dtype : kTypes)
    for (const int64_t d : {16, 64, 96, 128})
      for (AttentionPlan* plan : {&packed, &windowed, &cached}) {
        CAPTURE(d);
        plan->scale = 1 / std::sqrt(static_cast<double>(d));
        plan->backend_state = nullptr;
        const auto run = [&](auto& in, auto& out, auto forward, auto backward) {
          ParallaxResult result{out[0], out[1], out[2], out[3]};
          ParallaxGradients gradients{out[4], out[5], out[6], out[7]};
          const ParallaxInputs inputs{in[0], in[1], in[2], in[3]};
          forward(inputs, *plan, result);
          backward(inputs, result, in[4], *plan, gradients);
        };
        parallax_case(71, 71, 4, 2, d)
            .LH_BOTH(dtype, slack(dtype), run(in, out, &parallax_forward, &parallax_backward));
      }
}

TEST_CASE("cuda parallax of few new tokens runs the decoding kernel and equals the CPU's") {
  if (no_device()) return;
  AttentionPlan plans[3];
  plans[0].segments = {{0, 1, 0, 1000, 999}};  // one sequence: its keys are split
  // A batch: lengths from 0, an unused place, several tokens, queries before all keys.
  plans[1].segments = {{0, 1, 0, 700, 699}, {1, 4, 700, 90, 86},  {5, 0, 790, 10, 0},
                       {5, 1, 790, 0, -1},  {7, 8, 790, 200, 192}, {15, 2, 990, 10, -3}};
  plans[2].segments = plans[1].segments;
  plans[2].mask = {100, 3};
  for (const DType dtype : kTypes)
    for (const int64_t d : {64, 128})
      for (AttentionPlan& plan : plans) {
        CHECK(cuda::is_decoding(plan));
        CAPTURE(d);
        plan.scale = 1 / std::sqrt(static_cast<double>(d));
        for (const int64_t kv_heads : {1, 2, 6}) {
          plan.backend_state = nullptr;
          Case decoding = parallax_case(18, 1000, 6, kv_heads, d);
          decoding.outputs.resize(4);
          const auto run = [&](auto& in, auto& out, auto forward) {
            ParallaxResult result{out[0], out[1], out[2], out[3]};
            forward({in[0], in[1], in[2], in[3]}, plan, result);
          };
          decoding.LH_BOTH(dtype, slack(dtype), run(in, out, &parallax_forward));
        }
      }
}

TEST_CASE("cuda parallax equals the definition in fp64 as nearly as the CPU's") {
  if (no_device()) return;
  const lh::test::AttentionCase c = packed_case({33, 1, 70}, 6, 2, 64, 32, {40, 3});
  for (const DType dtype : kTypes) {
    CAPTURE(std::string(dtype_name(dtype)));
    ParallaxArrays a = random_parallax(c, dtype, 3, 0.5);
    parallax_reference(c, a);
    ParallaxTensors t(c, a, dtype);
    t.forward(c.plan);
    t.backward(c.plan);
    const std::vector<Tensor> on_cpu = t.outputs();
    const auto moved = [](const Tensor& x) { return x.to(kGpu); };
    const ParallaxInputs in{moved(t.in.q), moved(t.in.r), moved(t.in.k), moved(t.in.v)};
    ParallaxTensors made(c, a, dtype);
    ParallaxResult result{moved(made.result.out), moved(made.result.intercept),
                          moved(made.result.lse), moved(made.result.probe_mean)};
    ParallaxGradients gradients{moved(made.gradients.dq), moved(made.gradients.dr),
                                moved(made.gradients.dk), moved(made.gradients.dv)};
    AttentionPlan plan = c.plan;
    plan.backend_state = nullptr;
    cuda::parallax_forward(in, plan, result);
    cuda::parallax_backward(in, result, moved(t.d_out), plan, gradients);
    const std::vector<Tensor> on_gpu = {result.out,   result.intercept, result.lse,
                                        result.probe_mean, gradients.dq, gradients.dr,
                                        gradients.dk, gradients.dv};
    const std::vector<std::vector<double>> want = {a.out, a.intercept, a.lse, a.probe_mean,
                                                   a.dq,  a.dr,        a.dk,  a.dv};
    for (size_t i = 0; i < want.size(); ++i) {
      CAPTURE(i);
      LH_CHECK_TWICE(on_gpu[i].to(kCpuDevice), on_cpu[i], want[i], slack(dtype));
    }
  }
}

TEST_CASE("cuda parallax with a plan that takes other documents equals that of exact plans") {
  if (no_device()) return;
  const std::vector<std::vector<int64_t>> cuts = {{0, 90}, {0, 1, 90}, {0, 64, 65, 90}, {0, 90}};
  for (const DType dtype : kTypes) {
    const Shape qs{90, 4, 64}, ks{90, 2, 64}, sums{90, 4};
    const auto on_gpu = [&](const Shape& shape, uint64_t seed) {
      return as(normal(shape, seed), dtype).to(kGpu);
    };
    const ParallaxInputs in{on_gpu(qs, 1), on_gpu(qs, 2), on_gpu(ks, 3), on_gpu(ks, 4)};
    const Tensor dy = on_gpu(qs, 5);
    AttentionPlan kept;
    kept.mask = {7, 2};
    kept.scale = 0.2;
    kept.segment_capacity = 8;
    for (const auto& cut : cuts) {
      kept.segments.clear();
      for (size_t i = 0; i + 1 < cut.size(); ++i)
        kept.segments.push_back({cut[i], cut[i + 1] - cut[i], cut[i], cut[i + 1] - cut[i], 0});
      cuda::refresh_plan(kept);
      const AttentionPlan exact{kept.segments, kept.mask, kept.scale};
      std::vector<Tensor> results[2];
      for (const AttentionPlan* plan : std::initializer_list<const AttentionPlan*>{&kept, &exact}) {
        ParallaxResult result{Tensor::empty_like(in.q), Tensor::empty_like(in.q),
                              Tensor::empty(sums, DType::kF32, kGpu),
                              Tensor::empty(sums, DType::kF32, kGpu)};
        ParallaxGradients d{Tensor::empty_like(in.q), Tensor::empty_like(in.r),
                            Tensor::empty_like(in.k), Tensor::empty_like(in.v)};
        cuda::parallax_forward(in, *plan, result);
        cuda::parallax_backward(in, result, dy, *plan, d);
        for (const Tensor& t : {result.out, result.intercept, result.lse, result.probe_mean, d.dq,
                                d.dr, d.dk, d.dv})
          results[plan == &kept ? 0 : 1].push_back(t.to(kCpuDevice));
      }
      for (size_t i = 0; i < results[0].size(); ++i)
        CHECK(bitwise_equal(results[0][i], results[1][i]));
    }
  }
}

TEST_CASE("cuda parallax refuses head sizes and types its kernels do not have") {
  if (no_device()) return;
  AttentionPlan plan;
  plan.segments = {{0, 20, 0, 20, 0}};
  const auto message = [&](int64_t d, DType dtype) -> std::string {
    const auto zeros = [&](const Shape& shape, DType type) {
      return Tensor::zeros(shape, type, kGpu);
    };
    const DType sums = dtype == DType::kF64 ? DType::kF64 : DType::kF32;
    const Shape rows{20, 2, d};
    ParallaxResult result{zeros(rows, dtype), zeros(rows, dtype), zeros({20, 2}, sums),
                          zeros({20, 2}, sums)};
    try {
      cuda::parallax_forward(
          {zeros(rows, dtype), zeros(rows, dtype), zeros(rows, dtype), zeros(rows, dtype)}, plan,
          result);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  CHECK(message(128, DType::kBF16) == "");
  const std::string wide = message(144, DType::kBF16);
  CAPTURE(wide);
  CHECK(wide.find("[parallax]") == 0);
  CHECK(wide.find("multiples of 16 up to 128, got 144 and 144") != std::string::npos);
  CHECK(message(64, DType::kF64) ==
        "[parallax] expected f32 or bf16, which the CUDA backend computes in, got f64");
}
