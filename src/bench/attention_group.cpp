// Softmax attention of training by length: one document, packed documents, and a window. Operations
// are those of the pairs the mask lets through: 4 d per pair and head forward (two products), 10 d
// backward (five). Then the variants of attention beside it.
#include <algorithm>
#include <cmath>

#include "backend/attention.h"
#include "backend/cuda/attention_cudnn.h"
#include "base/log.h"
#include "base/philox.h"
#include "bench/attention_variants.h"
#include "bench/yardstick.h"

namespace lh::bench {
namespace {

constexpr int64_t kHeadDim = 128;

/// Pairs of a query and a key of a causal plan that are nearer than `window`; 0: all.
double visible_pairs(const AttentionPlan& plan, int64_t window) {
  double pairs = 0;
  for (const AttentionSegment& s : plan.segments) {
    const auto length = static_cast<double>(s.query_length);
    const double near = window == 0 ? length : std::min(length, static_cast<double>(window));
    pairs += near * (near + 1) / 2 + (length - near) * near;
  }
  return pairs;
}
double visible_pairs(const AttentionPlan& plan) { return visible_pairs(plan, plan.mask.window); }

/// The same work by cuDNN, where it is there and takes the plan; else a matrix product.
Yardstick peer_of(AttentionOperands& o, const AttentionPlan& plan, bool backward, double flops,
                  const Yardstick& product) {
  if constexpr (kWithCuda) {
    if (!o.device().is_cpu() &&
        cuda::cudnn_attention_takes(plan, {&o.in.q, &o.in.k, &o.in.v, &o.result.out, &o.d_out})) {
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
  AttentionPlan plan = causal_plan(lengths, kHeadDim);
  plan.mask.window = window;
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

/// Both passes of the variants beside both of our own softmax attention. A Parallax pair costs 8 d forward (four
/// products) and 16 d backward; hard gates leave of the pairs outside the window one in ten.
void bench_variants(const Setup& setup, Report& report) {
  const int64_t heads = setup.pick(2, 8, 16), kv_heads = setup.pick(1, 4, 8);
  // Longer than the window, or no gate would act.
  const int64_t shortest = setup.pick(2 * kGateWindow, 512, 4096), longest = setup.pick(2 * kGateWindow, 2048, 32768);
  for (int64_t length = shortest; length <= longest; length *= 2) {
    AttentionOperands operands({longest, heads, kv_heads, kHeadDim}, setup.dtype, setup.device);
    const AttentionPlan plan = plan_of(std::vector<int64_t>(static_cast<size_t>(longest / length), length), 0);
    const double all = visible_pairs(plan), near = visible_pairs(plan, kGateWindow);
    const auto contender = [&](const char* name, const AttentionWay& way, double flops) {
      return Contender{[way] { way.both(); },
                       {.group = "attention", .name = name,
                        .shape = fmt::format("{}x{} {}/{}", longest / length, length, heads, kv_heads),
                        .dtype = dtype_name(setup.dtype), .flops = flops * kHeadDim * static_cast<double>(heads)}};
    };
    std::vector<Contender> contenders = {
        contender("parallax forward+backward", parallax_way(operands, plan), 24 * all),
        contender("sp_kv soft forward+backward", soft_way(operands, plan), 14 * all),
        contender("sp_kv hard forward+backward", hard_way(operands, plan), 14 * (near + kGateDensity * (all - near)))};
    if (setup.has_targets()) contenders[0].row.target = {.of = Target::Of::kTimeAtMost, .bound = 2};
    const AttentionWay softmax = softmax_way(operands, plan);
    add_same_job([&] { softmax.both(); }, "softmax attention", std::move(contenders), setup, report, setup.effort());
  }
}

}  // namespace

void bench_attention(const Setup& setup, Report& report) {
  const Yardstick peak = product_yardstick(setup);
  const int64_t heads = setup.pick(2, 8, 32), kv_heads = setup.pick(1, 2, 8);
  const int64_t shortest = setup.pick(64, 512, 4096), longest = setup.pick(128, 2048, 32768);
  const int64_t window = setup.pick(32, 256, 1024);
  for (int64_t length = shortest; length <= longest; length *= 2) {
    // Every length with the same number of tokens.
    AttentionOperands operands({longest, heads, kv_heads, kHeadDim}, setup.dtype, setup.device);
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
  bench_variants(setup, report);
}

}  // namespace lh::bench
