// Every operation of the CUDA backend against the CPU backend on the same inputs, and both against
// the CPU backend in fp64: the device may be twice as far from fp64 as the CPU, and a little more
// where sums are short. Built with LH_CUDA=ON (runs where there is a device) and EMULATED.
#include "backend/cuda_case.h"

#include "backend/attention.h"
#include "backend/cuda/attention_decode.h"
#include "backend/embedding.h"
#include "backend/matmul.h"
#include "backend/norm.h"
#include "backend/optim.h"
#include "backend/reduce.h"
#include "backend/rope.h"
#include "backend/utility_gate.h"

namespace {

using namespace lh;
using namespace lh::test;

TEST_CASE("cuda elementwise operations equal the CPU's") {
  if (no_device()) return;
  for (const DType dtype : kTypes) {
    for (const Shape& shape : {Shape{7}, Shape{3, 40}}) {
      const Tensor a = normal(shape, 1), b = normal(shape, 2), c = normal(shape, 3);
      const Case two{{a, b}, {c}, {false}};
      two.LH_BOTH(dtype, 1e-6, add_scaled(in[0], 0.5, in[1], -2, out[0]));
      two.LH_BOTH(dtype, 1e-6, multiply(in[0], in[1], out[0]));
      two.LH_BOTH(dtype, 1e-6, scale(in[0], 1.7, out[0]));
      two.LH_BOTH(dtype, 1e-6, swiglu_forward(in[0], in[1], out[0]));
      two.LH_BOTH(dtype, 1e-6, sigmoid_gate_forward(in[0], in[1], out[0]));
      const Case three{{a, b, c}, {a, b}, {false, false}};
      three.LH_BOTH(dtype, 1e-6, swiglu_backward(in[0], in[1], in[2], out[0], out[1]));
      three.LH_BOTH(dtype, 1e-6, sigmoid_gate_backward(in[0], in[1], in[2], out[0], out[1]));
    }
    const Case strided{{normal({5, 48}, 4)}, {normal({5, 16}, 5)}, {false}};
    strided.LH_BOTH(dtype, 1e-6,
                    swiglu_forward(in[0].slice(1, 0, 16), in[0].slice(1, 32, 48), out[0]));
    const Case bias{{normal({9, 24}, 6), normal({24}, 7)}, {normal({9, 24}, 8), normal({24}, 9)},
                    {false, true}};
    bias.LH_BOTH(dtype, 1e-5, (add_bias(out[0], in[1]), bias_backward(in[0], out[1])));
    const Case turned{{normal({33, 65}, 10)}, {normal({65, 33}, 11)}, {false}};
    turned.LH_BOTH(dtype, 0, copy(in[0].transpose(0, 1), out[0]));
    const Case filled{{}, {normal({33}, 12)}, {false}};
    filled.LH_BOTH(dtype, 0, fill(out[0], 1.5));
  }
}

TEST_CASE("cuda scale_by reads its factor on the device") {
  if (no_device()) return;
  for (const DType dtype : kTypes) {
    const Tensor a = as(normal({50}, 1), dtype);
    Tensor out = as(normal({50}, 2), dtype), on_gpu = out.to(kGpu);
    const Tensor factor = Tensor::from(std::vector<float>{0.25f}, {1});
    cuda::scale_by(a.to(kGpu), factor.to(kGpu), on_gpu, true);
    Tensor copy = Tensor::empty_like(out);
    cpu::copy(out, copy);
    cpu::scale_by(a, factor, copy, true);
    LH_CHECK_CLOSE(on_gpu.to(kCpuDevice), copy, 1e-6, 0.005);
  }
}

TEST_CASE("cuda norms equal the CPU's for long and short rows") {
  if (no_device()) return;
  for (const DType dtype : kTypes) {
    for (const int64_t d : {16, 64, 128, 300, 1024}) {
      CAPTURE(d);
      const Case forward{{normal({6, d}, 1), normal({d}, 2)}, {normal({6, d}, 3), normal({6}, 4)},
                         {false, true}};
      forward.LH_BOTH(dtype, 1e-5, rms_norm_forward(in[0], in[1], 1e-5, out[0], out[1]));
      for (const bool accumulate : {false, true}) {
        const Case backward{{normal({6, d}, 1), normal({d}, 2), normal({6, d}, 5)},
                            {normal({6, d}, 6), normal({d}, 7), normal({6, d}, 8), normal({6}, 9)},
                            {false, true, false, true}};
        backward.LH_BOTH(dtype, 2e-5,
                         (rms_norm_forward(in[0], in[1], 1e-5, out[2], out[3]),
                          rms_norm_backward(in[0], in[1], out[3], in[2], out[0], accumulate, out[1])));
      }
    }
  }
}

TEST_CASE("cuda products equal the CPU's for every transpose") {
  if (no_device()) return;
  const int64_t m = 24, n = 40, k = 56;
  for (const DType dtype : kTypes) {
    for (const bool ta : {false, true})
      for (const bool tb : {false, true})
        for (const bool accumulate : {false, true})
          for (const bool wide : {false, true}) {
            CAPTURE(ta);
            CAPTURE(tb);
            const Case product{{normal(ta ? Shape{k, m} : Shape{m, k}, 1),
                                normal(tb ? Shape{n, k} : Shape{k, n}, 2)},
                               {normal({m, n}, 3)},
                               {wide}};
            product.LH_BOTH(dtype, 1e-4, gemm(in[0], ta, in[1], tb, out[0], accumulate));
          }
    for (const bool accumulate : {false, true}) {
      const Case biased{{normal({m, k}, 1), normal({n, k}, 2), normal({n}, 3)},
                        {normal({m, n}, 4)},
                        {false}};
      biased.LH_BOTH(dtype, 1e-4, gemm(in[0], false, in[1], true, out[0], accumulate, in[2]));
      // Weight gradients are f32 in training; in the compute type when no leaf holds them.
      for (const bool wide : {true, false}) {
        const Case gradient{{normal({m, n}, 5), normal({m, k}, 6)},
                            {normal({n, k}, 7), normal({n}, 8)},
                            {wide, true}};
        gradient.LH_BOTH(dtype, 1e-4,
                         gemm_bias_backward(in[0], in[1], out[0], accumulate, out[1]));
      }
    }
    const Case strided{{normal({m, 2 * k}, 1), normal({n, k}, 2)}, {normal({m, n}, 3)}, {false}};
    strided.LH_BOTH(dtype, 1e-4, gemm(in[0].slice(1, 8, 8 + k), false, in[1], true, out[0], false));
    for (const int64_t rows : {1, 3, 8}) {
      const Case few{{normal({rows, k}, 4), normal({n, k}, 5)}, {normal({rows, n}, 6)}, {false}};
      few.LH_BOTH(dtype, 1e-4, gemv(in[0], in[1], out[0]));
    }
  }
}

TEST_CASE("cuda rope embedding and loss equal the CPU's") {
  if (no_device()) return;
  for (const DType dtype : kTypes) {
    const Tensor positions = random_ids({7}, 20, 1), table = as(normal({20, 16}, 2), DType::kF32);
    for (const bool inverse : {false, true}) {
      // The table stays f32 in every run.
      const Case turn{{normal({7, 3, 16}, 3), positions}, {normal({7, 3, 16}, 4)}, {false}};
      turn.LH_BOTH(dtype, 1e-5,
                   rope(in[0], in[0].dtype() == DType::kF64 ? as(table, DType::kF64)
                                                            : table.to(in[0].device()),
                        in[1], inverse, out[0]));
    }
    const Tensor ids = random_ids({90}, 11, 5);
    const Case lookup{{normal({11, 24}, 6), ids, normal({90, 24}, 7)},
                      {normal({90, 24}, 8), normal({11, 24}, 9)},
                      {false, true}};
    lookup.LH_BOTH(dtype, 2e-5, (embedding_forward(in[0], in[1], 2, out[0]),
                                 embedding_backward(in[1], in[2], 2, out[1])));
  }
}

TEST_CASE("cuda attention equals the CPU's over packed documents windows sinks and caches") {
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
        const Shape qs{71, 4, d}, ks{71, 2, d};
        const Case attention{
            {normal(qs, 1), normal(ks, 2), normal(ks, 3), normal(qs, 4)},
            {normal(qs, 5), normal({71, 4}, 6), normal(qs, 7), normal(ks, 8), normal(ks, 9)},
            {false, true, false, false, false}};
        attention.LH_BOTH(dtype, dtype == DType::kBF16 ? 4e-3 : 2e-5,
                          (attention_forward(in[0], in[1], in[2], *plan, out[0], out[1]),
                           attention_backward(in[0], in[1], in[2], out[0], out[1], in[3], *plan,
                                              out[2], out[3], out[4])));
      }
}

TEST_CASE("cuda attention with a bias per key equals the CPU's, closed keys and its gradient") {
  if (no_device()) return;
  AttentionPlan packed;
  packed.segments = {{0, 30, 0, 30, 0}, {30, 1, 30, 1, 0}, {31, 40, 31, 40, 0}};
  packed.mask.bias_window = 7;
  AttentionPlan cached;  // rows outside every segment
  cached.segments = {{3, 2, 0, 69, 67}};
  cached.mask.bias_window = 9;
  Tensor values = as(normal({71, 2}, 10), DType::kF32);
  for (int64_t i = 0; i < values.numel(); i += 3) values.data<float>()[i] = -INFINITY;
  const auto bias = [&](const Tensor& q) {
    return q.dtype() == DType::kF64 ? as(values, DType::kF64) : values.to(q.device());
  };
  for (const DType dtype : kTypes)
    for (const int64_t d : {16, 64, 128})
      for (AttentionPlan* plan : {&packed, &cached}) {
        CAPTURE(d);
        plan->scale = 1 / std::sqrt(static_cast<double>(d));
        plan->backend_state = nullptr;
        const Shape qs{71, 4, d}, ks{71, 2, d};
        const Case attention{
            {normal(qs, 1), normal(ks, 2), normal(ks, 3), normal(qs, 4)},
            {normal(qs, 5), normal({71, 4}, 6), normal(qs, 7), normal(ks, 8), normal(ks, 9),
             normal({71, 2}, 10)},
            {false, true, false, false, false, true}};
        attention.LH_BOTH(
            dtype, dtype == DType::kBF16 ? 4e-3 : 2e-5,
            (attention_forward(in[0], in[1], in[2], *plan, out[0], out[1],
                               bias(in[0])),
             attention_backward(in[0], in[1], in[2], out[0], out[1], in[3], *plan, out[2], out[3],
                                out[4], bias(in[0]), &out[5])));
      }
}

TEST_CASE("cuda attention leaves out keys that a bias closes and equals the CPU's") {
  if (no_device()) return;
  const int64_t n = 330;  // more than two tiles of the Hopper kernels
  AttentionPlan document, windowed, chunk;
  document.segments = {{0, n, 0, n, 0}};
  document.mask.bias_window = 20;
  document.mask.bias_closes = true;
  windowed = chunk = document;
  windowed.mask.window = 150;
  chunk.segments = {{10, 40, 0, n, n - 40}};
  // Head 0: a tenth is open, scattered; head 1: runs of closed keys, some as long as tiles.
  Tensor values = as(normal({n, 2}, 10), DType::kF32);
  for (int64_t i = 0; i < n; ++i) {
    if (i * 7 % 10 != 3) values.data<float>()[2 * i] = -INFINITY;
    if (i >= 60 && i < 260 && i != 70) values.data<float>()[2 * i + 1] = -INFINITY;
  }
  const auto bias = [&](const Tensor& q) {
    return q.dtype() == DType::kF64 ? as(values, DType::kF64) : values.to(q.device());
  };
  for (const DType dtype : kTypes)
    for (const int64_t d : {32, 64, 128})
      for (AttentionPlan* plan : {&document, &windowed, &chunk}) {
        if (d != 64 && plan != &document) continue;
        CAPTURE(d);
        plan->scale = 1 / std::sqrt(static_cast<double>(d));
        plan->backend_state = nullptr;
        const Shape qs{n, 4, d}, ks{n, 2, d};
        const Case attention{
            {normal(qs, 1), normal(ks, 2), normal(ks, 3), normal(qs, 4)},
            {normal(qs, 5), normal({n, 4}, 6), normal(qs, 7), normal(ks, 8), normal(ks, 9),
             normal({n, 2}, 10)},
            {false, true, false, false, false, true}};
        attention.LH_BOTH(
            dtype, dtype == DType::kBF16 ? 4e-3 : 2e-5,
            (attention_forward(in[0], in[1], in[2], *plan, out[0], out[1], bias(in[0])),
             attention_backward(in[0], in[1], in[2], out[0], out[1], in[3], *plan, out[2], out[3],
                                out[4], bias(in[0]), &out[5])));
      }
}

TEST_CASE("cuda utility gates equal the CPU's") {
  if (no_device()) return;
  for (const DType dtype : kTypes)
    for (const Shape& shape : {Shape{1, 1}, Shape{77, 3}, Shape{64, 8}})
      for (const UtilityGate& gate :
           {UtilityGate{GateMode::kSoft, 1, 0.5}, UtilityGate{GateMode::kAnneal, 0.4, 0.3},
            UtilityGate{GateMode::kAnneal, 1, 0.6}, UtilityGate{}}) {
        const Case gates{{normal(shape, 1, 3)}, {normal(shape, 2), normal(shape, 3)}, {true, false}};
        const auto dbias = [&](const Tensor& x) {
          const DType wide = x.dtype() == DType::kF64 ? DType::kF64 : DType::kF32;
          return as(as(normal(shape, 4), DType::kF32), wide).to(x.device());
        };
        gates.LH_BOTH(dtype, 2e-5,
                      (utility_gate_forward(in[0], gate, out[0]),
                       utility_gate_backward(in[0], gate, dbias(in[0]), out[1])));
      }
}

TEST_CASE("cuda utility gates that are clipped, weighted, drawn or pulled equal the CPU's") {
  if (no_device()) return;
  for (const DType dtype : kTypes)
    for (const Shape& shape : {Shape{1, 1}, Shape{77, 3}, Shape{64, 8}})
      for (const GateMode mode :
           {GateMode::kSoft, GateMode::kSample, GateMode::kAnneal, GateMode::kHard})
        for (const bool weighted : {false, true})
          for (const double clip : {0.0, 0.2}) {
            std::vector<int64_t> numbers;
            for (int64_t r = 0; r < shape[0]; ++r)
              numbers.push_back(r % 4 == 1 ? -1 : r + (int64_t{1} << 40));
            const auto gate_on = [&](Device device) {
              UtilityGate gate{mode, 0.4, 0.3, clip, weighted, 0.7};
              gate.rows = Tensor::from(numbers, {shape[0]}).to(device);
              gate.draw_key = 12345;
              return gate;
            };
            const Case gates{{normal(shape, 1, 3)},
                             {normal(shape, 2), normal(shape, 3), normal(shape, 5)},
                             {true, false, true}};
            const auto dbias = [&](const Tensor& x) {
              const DType wide = x.dtype() == DType::kF64 ? DType::kF64 : DType::kF32;
              return as(as(normal(shape, 4), DType::kF32), wide).to(x.device());
            };
            gates.LH_BOTH(dtype, 2e-5,
                          (utility_gate_forward(in[0], gate_on(in[0].device()), out[0]),
                           utility_gate_backward(in[0], gate_on(in[0].device()), dbias(in[0]), out[1]),
                           utility_values(in[0], gate_on(in[0].device()), out[2])));
          }
}

TEST_CASE("cuda attention of few new tokens runs the decoding kernel and equals the CPU's") {
  if (no_device()) return;
  AttentionPlan plans[4];
  plans[0].segments = {{0, 1, 0, 1000, 999}};  // one sequence: its keys are split
  // A batch: lengths from 0, an unused place, several tokens, queries before all keys.
  plans[1].segments = {{0, 1, 0, 700, 699}, {1, 4, 700, 90, 86},  {5, 0, 790, 10, 0},
                       {5, 1, 790, 0, -1},  {7, 8, 790, 200, 192}, {15, 2, 990, 10, -3}};
  plans[2].segments = plans[1].segments;
  plans[2].mask = {100, 3};
  plans[3].segments = {{0, 9, 0, 1000, 991}};
  for (int i = 0; i < 3; ++i) CHECK(cuda::is_decoding(plans[i]));
  CHECK(!cuda::is_decoding(plans[3]));  // longer runs are tiles of queries
  CHECK(!cuda::is_decoding(AttentionPlan{}));
  for (const DType dtype : kTypes)
    for (const int64_t d : {64, 128})
      for (AttentionPlan& plan : plans) {
        CAPTURE(d);
        plan.scale = 1 / std::sqrt(static_cast<double>(d));
        plan.backend_state = nullptr;
        for (const int64_t kv_heads : {1, 2, 6}) {
          const Shape qs{18, 6, d}, ks{1000, kv_heads, d};
          const Case attention{{normal(qs, 1), normal(ks, 2), normal(ks, 3)},
                               {normal(qs, 5), normal({18, 6}, 6)},
                               {false, true}};
          attention.LH_BOTH(dtype, dtype == DType::kBF16 ? 4e-3 : 2e-5,
                            (attention_forward(in[0], in[1], in[2], plan, out[0], out[1])));
        }
      }
}

TEST_CASE("cuda attention with a plan that takes other documents equals that of exact plans") {
  if (no_device()) return;
  const std::vector<std::vector<int64_t>> cuts = {{0, 90}, {0, 1, 90}, {0, 64, 65, 90}, {0, 90}};
  for (const DType dtype : kTypes)
    for (const int64_t d : {16, 64, 128})
      for (const AttentionMask mask : {AttentionMask{}, AttentionMask{7, 2}}) {
        CAPTURE(d);
        const Shape qs{90, 4, d}, ks{90, 2, d};
        const Tensor q = as(normal(qs, 1), dtype).to(kGpu), k = as(normal(ks, 2), dtype).to(kGpu),
                     v = as(normal(ks, 3), dtype).to(kGpu), dy = as(normal(qs, 4), dtype).to(kGpu);
        AttentionPlan kept;
        kept.mask = mask;
        kept.scale = 0.2;
        kept.segment_capacity = 8;
        for (const auto& cut : cuts) {
          kept.segments.clear();
          for (size_t i = 0; i + 1 < cut.size(); ++i)
            kept.segments.push_back({cut[i], cut[i + 1] - cut[i], cut[i], cut[i + 1] - cut[i], 0});
          cuda::refresh_plan(kept);
          const AttentionPlan exact{kept.segments, mask, 0.2};
          std::vector<Tensor> results[2];
          for (const AttentionPlan* plan : std::initializer_list<const AttentionPlan*>{&kept, &exact}) {
            Tensor out = Tensor::empty_like(q), lse = Tensor::empty({90, 4}, DType::kF32, kGpu);
            Tensor dq = Tensor::empty_like(q), dk = Tensor::empty_like(k), dv = Tensor::empty_like(v);
            cuda::attention_forward(q, k, v, *plan, out, lse);
            cuda::attention_backward(q, k, v, out, lse, dy, *plan, dq, dk, dv);
            for (const Tensor& t : {out, lse, dq, dk, dv})
              results[plan == &kept ? 0 : 1].push_back(t.to(kCpuDevice));
          }
          for (size_t i = 0; i < results[0].size(); ++i)
            CHECK(bitwise_equal(results[0][i], results[1][i]));
        }
      }
}

TEST_CASE("cuda sums and counts stay on the device until they are asked for") {
  if (no_device()) return;
  for (const DType dtype : kTypes) {
    Tensor x = as(normal({5000}, 1), dtype);
    Tensor total = Tensor::zeros({1}, DType::kF64), on_gpu = Tensor::zeros({1}, DType::kF64, kGpu);
    cpu::sum_of_squares(x, total, true);
    cuda::sum_of_squares(x.to(kGpu), on_gpu, true);
    CHECK(on_gpu.item() == doctest::Approx(total.item()).epsilon(1e-6));
    Tensor inverse = Tensor::empty({1}, DType::kF32, kGpu);
    cuda::inverse_norm(on_gpu, 1e-7, inverse);
    CHECK(inverse.item() == doctest::Approx(1 / std::sqrt(total.item())).epsilon(1e-6));
    cuda::sum(x.to(kGpu), on_gpu, false);
    cpu::sum(x, total, false);
    CHECK(on_gpu.item() == doctest::Approx(total.item()).epsilon(1e-5));
    assign(x, [] {
      std::vector<double> values(5000, 1);
      values[17] = NAN;
      values[4999] = INFINITY;
      return values;
    }());
    Tensor count = Tensor::empty({1}, DType::kI64, kGpu);
    cuda::count_non_finite(x.to(kGpu), count);
    CHECK(count.item() == 2);
  }
}

/// The scalars of an update on a device, as backend/optim.h lists them.
Tensor step_scalars(Device device, double grad_scale) {
  const std::vector<double> values = {grad_scale, 0.5, 0.7, 1 - std::pow(0.9, 3),
                                      1 / std::sqrt(1 - std::pow(0.95, 3))};
  return Tensor::from(values, {kStepScalars}).to(device);
}

TEST_CASE("cuda optimizer steps equal the CPU's") {
  if (no_device()) return;
  const AdamWSettings settings{0.01, 0.9, 0.95, 1e-8};
  const std::vector<int64_t> sizes = {301, 1, 20000};
  Case adamw;
  for (size_t i = 0; i < sizes.size(); ++i) {
    const Shape shape{sizes[i]};
    adamw.inputs.push_back(normal(shape, 10 * i + 1));
    for (const uint64_t seed : {2, 3, 4})
      adamw.outputs.push_back(normal(shape, 10 * i + seed, seed == 2 ? 1 : seed == 3 ? 0.1 : 0));
    adamw.sums.insert(adamw.sums.end(), 3, true);
  }
  const auto list = [](const std::vector<Tensor>& in, const std::vector<Tensor>& out) {
    AdamWList result;
    for (size_t i = 0; i < in.size(); ++i)
      result.operands.push_back({out[3 * i], in[i], out[3 * i + 1], out[3 * i + 2], Tensor(),
                                 1 + static_cast<double>(i), 0.1 * static_cast<double>(i)});
    return result;
  };
  for (const double scale : {0.5, double{NAN}})
    adamw.LH_BOTH(DType::kF32, 1e-6,
                  adamw_step(list(in, out), settings, step_scalars(in[0].device(), scale)));
  const Case momentum{{normal({301}, 1)}, {normal({301}, 2), normal({301}, 3)}, {true, true}};
  const Case update{{normal({301}, 1)}, {normal({301}, 2)}, {true}};
  for (const double scale : {0.5, double{INFINITY}}) {
    momentum.LH_BOTH(DType::kF32, 1e-6,
                     momentum_step(out[0], in[0], 0.9, step_scalars(in[0].device(), scale),
                                   &out[1]));
    update.LH_BOTH(DType::kF32, 1e-6,
                   apply_update(out[0], in[0], 0.1, 2, 0.3, step_scalars(in[0].device(), scale),
                                nullptr));
  }
  Tensor p = as(normal({64}, 1), DType::kF32).to(kGpu), u = as(normal({64}, 2), DType::kF32).to(kGpu);
  Tensor copy = Tensor::empty({64}, DType::kBF16, kGpu);
  cuda::apply_update(p, u, 0.1, 1, 0, step_scalars(kGpu, 1), &copy);
  CHECK(bitwise_equal(copy.to(kCpuDevice), as(p.to(kCpuDevice), DType::kBF16)));
}

TEST_CASE("cuda clipping factors equal the CPU's, over lists with huge and bad gradients") {
  if (no_device()) return;
  for (const double last : {1.0, 3e30, double{INFINITY}, double{NAN}}) {
    TensorList on_cpu, on_gpu;
    for (const int64_t n : {5, 20000, 64}) {
      on_cpu.tensors.push_back(as(normal({n}, static_cast<uint64_t>(n)), DType::kF32));
      on_cpu.tensors.back().data<float>()[n - 1] = static_cast<float>(last);
      on_gpu.tensors.push_back(on_cpu.tensors.back().to(kGpu));
    }
    Tensor sum = Tensor::empty({1}, DType::kF64), factor = Tensor::empty({1}, DType::kF64);
    Tensor gpu_sum = sum.to(kGpu), gpu_factor = factor.to(kGpu);
    cpu::sum_of_squares(on_cpu, sum);
    cuda::sum_of_squares(on_gpu, gpu_sum);
    const Tensor losses = Tensor::from(std::vector<double>{1, 2}, {2});
    cpu::clip_scale(sum, losses, 0.5, factor);
    cuda::clip_scale(gpu_sum, losses.to(kGpu), 0.5, gpu_factor);
    CHECK(std::isfinite(gpu_sum.item()) == std::isfinite(last));
    CHECK(std::isfinite(gpu_factor.item()) == std::isfinite(last));
    if (!std::isfinite(last)) continue;
    // Sums in f64, in another order.
    CHECK(gpu_sum.item() == doctest::Approx(sum.item()).epsilon(1e-12));
    CHECK(gpu_factor.item() == doctest::Approx(factor.item()).epsilon(1e-12));
  }
}

TEST_CASE("cuda operations refuse what they do not support with the op and both facts") {
  if (no_device()) return;
  const auto message = [](auto&& run) {
    try {
      run();
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  Tensor wide = Tensor::empty({4}, DType::kF64, kGpu), out = Tensor::empty({4}, DType::kF32, kGpu);
  CHECK(message([&] { cuda::scale(wide, 1, wide); }) ==
        "[scale] expected f32 or bf16, which the CUDA backend computes in, got f64");
  Tensor host = Tensor::empty({4}, DType::kF32);
  const std::string mixed = message([&] { cuda::add_scaled(host, 1, out, 1, out); });
  CHECK(mixed.find("[add_scaled] all must be on one device") == 0);
  CHECK(mixed.find("f32[4] on cpu, f32[4] on cuda:0") != std::string::npos);
  const std::string full = message([&] {
    const Tensor kept = Tensor::empty({1 << 20}, DType::kF32, kGpu);
    Tensor::empty({int64_t{1} << 45}, DType::kU8, kGpu);
  });
  CHECK(full.find("out of memory on cuda:0") == 0);
  CHECK(full.find("32.00 TiB requested for activations") != std::string::npos);
  CHECK(full.find("largest live blocks: 4.00 MiB (activations)") != std::string::npos);
}

}  // namespace
