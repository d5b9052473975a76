// Softmax attention of training by length: one document, packed documents, and a window. Operations
// are those of the pairs the mask lets through: 4 d per pair and head forward (two products), 10 d
// backward (five).
#include <algorithm>
#include <cmath>

#include "backend/attention.h"
#include "backend/cuda/attention_cudnn.h"
#include "base/log.h"
#include "base/philox.h"
#include "bench/yardstick.h"

namespace lh::bench {
namespace {

constexpr int64_t kHeadDim = 128;

double visible_pairs(const AttentionPlan& plan) {
  double pairs = 0;
  for (const AttentionSegment& s : plan.segments) {
    const auto length = static_cast<double>(s.query_length);
    const double window = plan.mask.window == 0
                              ? length
                              : std::min(length, static_cast<double>(plan.mask.window));
    pairs += window * (window + 1) / 2 + (length - window) * window;
  }
  return pairs;
}

/// Tensors of `rows` tokens, shared by all plans over them: a backward may see the output of
/// another plan's forward, which changes values, not work.
struct Operands {
  Tensor q, k, v, d_out, out, lse, dq, dk, dv;

  Operands(const Setup& setup, int64_t rows, int64_t heads, int64_t kv_heads)
      : q(random_tensor({rows, heads, kHeadDim}, setup.dtype, setup.device, 1)),
        k(random_tensor({rows, kv_heads, kHeadDim}, setup.dtype, setup.device, 2)),
        v(random_tensor({rows, kv_heads, kHeadDim}, setup.dtype, setup.device, 3)),
        d_out(random_tensor(q.shape(), setup.dtype, setup.device, 4)),
        out(Tensor::empty_like(q)),
        lse(Tensor::empty({rows, heads}, DType::kF32, setup.device)),
        dq(Tensor::empty_like(q)),
        dk(Tensor::empty_like(k)),
        dv(Tensor::empty_like(v)) {}

  void forward(const AttentionPlan& plan) {
    LH_DISPATCH(q.device(), "bench", attention_forward(q, k, v, plan, out, lse));
  }
  void backward(const AttentionPlan& plan) {
    LH_DISPATCH(q.device(), "bench",
                attention_backward(q, k, v, out, lse, d_out, plan, dq, dk, dv));
  }
};

/// The same work by cuDNN, where it is there and takes the plan; else a matrix product.
Yardstick peer_of(Operands& o, const AttentionPlan& plan, bool backward, double flops,
                  const Yardstick& product) {
  if constexpr (kWithCuda) {
    if (!o.q.device().is_cpu() &&
        cuda::cudnn_attention_takes(plan, {&o.q, &o.k, &o.v, &o.out, &o.d_out})) {
      const auto run = [&o, &plan, backward] {
        cuda::choose_cudnn_attention(true);
        backward ? o.backward(plan) : o.forward(plan);
        cuda::choose_cudnn_attention(false);
      };
      try {
        run();
        return {run, flops, "cuDNN"};
      } catch (const Error& error) {
        cuda::choose_cudnn_attention(false);
        log_warn("[bench] cuDNN is no peer for this case: {}", error.what());
      }
    }
  }
  return product;
}

AttentionPlan plan_of(const std::vector<int64_t>& lengths, int64_t window) {
  AttentionPlan plan;
  plan.scale = 1 / std::sqrt(static_cast<double>(kHeadDim));
  plan.mask.window = window;
  int64_t begin = 0;
  for (const int64_t length : lengths) {
    plan.segments.push_back({begin, length, begin, length, 0});
    begin += length;
  }
  return plan;
}

/// Documents of 1 to 2 * mean - 1 tokens, uniformly drawn, that fill `rows`.
std::vector<int64_t> document_lengths(int64_t rows, int64_t mean) {
  Philox random(7);
  std::vector<int64_t> lengths;
  for (int64_t left = rows; left > 0; left -= lengths.back()) {
    const uint64_t drawn = 1 + random.below(static_cast<uint64_t>(2 * mean - 1));
    lengths.push_back(std::min(left, static_cast<int64_t>(drawn)));
  }
  return lengths;
}

}  // namespace

void bench_attention(const Setup& setup, Report& report) {
  const Yardstick peak = product_yardstick(setup);
  const int64_t heads = setup.pick(2, 8, 32), kv_heads = setup.pick(1, 2, 8);
  const int64_t shortest = setup.pick(64, 512, 4096), longest = setup.pick(128, 2048, 32768);
  const int64_t window = setup.pick(32, 256, 1024);
  for (int64_t length = shortest; length <= longest; length *= 2) {
    // Every length with the same number of tokens.
    Operands operands(setup, longest, heads, kv_heads);
    const std::vector<int64_t> whole(static_cast<size_t>(longest / length), length);
    const AttentionPlan dense = plan_of(whole, 0);
    const AttentionPlan packed = plan_of(document_lengths(longest, length / 2), 0);
    const AttentionPlan windowed = plan_of(whole, window);
    const std::string shape = fmt::format("{}x{} {}/{}", longest / length, length, heads, kv_heads);
    const auto add = [&](const char* name, const AttentionPlan& plan, bool backward,
                         const Yardstick& peer) {
      Row row{.group = "attention", .name = name, .shape = shape,
              .dtype = dtype_name(setup.dtype)};
      row.flops = (backward ? 10.0 : 4.0) * kHeadDim * static_cast<double>(heads) *
                  visible_pairs(plan);
      row.window = plan.mask.window;
      for (const AttentionSegment& s : plan.segments) row.documents.push_back(s.query_length);
      add_against(
          peer, [&] { backward ? operands.backward(plan) : operands.forward(plan); }, setup,
          std::move(row), report);
    };
    for (const bool backward : {false, true}) {
      const double dense_flops = (backward ? 10.0 : 4.0) * kHeadDim * static_cast<double>(heads) *
                                 visible_pairs(dense);
      operands.forward(dense);
      add(backward ? "causal backward" : "causal forward", dense, backward,
          peer_of(operands, dense, backward, dense_flops, peak));
      const Yardstick own{[&] { backward ? operands.backward(dense) : operands.forward(dense); },
                          dense_flops, "causal, one document"};
      operands.forward(packed);
      add(backward ? "packed backward" : "packed forward", packed, backward, own);
      operands.forward(windowed);
      add(backward ? "window backward" : "window forward", windowed, backward, own);
    }
  }
}

}  // namespace lh::bench
