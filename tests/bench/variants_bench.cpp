// Speed of the variants of attention against softmax attention of the same shape, measured in turn
// in the same run.
//   bench_variants [parallax|soft|hard|all] [seconds per line] [longest sequence]
//   parallax   twice the products forward, 8 against 5 backward: 12/7 of the arithmetic
//   soft       SP-KV with gates in (0, 1): a bias per key outside a window of 128, its gradient
//   hard       SP-KV with one key in ten open outside that window
// A repetition is forward and backward of softmax attention, then of the variant. Milliseconds are
// the least of all repetitions; a ratio is the median over repetitions, which other work on the
// machine disturbs least. The last column compares the processor time of all threads.
#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <limits>

#include "backend/parallax.h"
#include "base/philox.h"
#include "base/timer.h"
#include "runtime/brief_waits.h"
#include "runtime/cpu_info.h"

namespace lh {
namespace {

constexpr int64_t kWindow = 128;

struct Shapes {
  int64_t tokens, heads, kv_heads, d;
};

Tensor random_tensor(const Shape& shape, DType dtype, uint64_t seed) {
  Tensor t = Tensor::empty(shape, dtype);
  Philox random(seed);
  dispatch_float(dtype, "random", [&]<typename T>() {
    for (T& x : t.span<T>()) x = T(static_cast<accumulate_t<T>>(random.normal()));
  });
  return t;
}

/// Operands of softmax attention and of all its variants, and their results.
struct Operands {
  AttentionPlan plan;
  ParallaxInputs in;
  Tensor d_out, bias, d_bias;
  ParallaxResult result;
  ParallaxGradients d_in;

  Operands(const Shapes& s, DType dtype)
      : in{random_tensor({s.tokens, s.heads, s.d}, dtype, 1),
           random_tensor({s.tokens, s.heads, s.d}, dtype, 2),
           random_tensor({s.tokens, s.kv_heads, s.d}, dtype, 3),
           random_tensor({s.tokens, s.kv_heads, s.d}, dtype, 4)},
        d_out(random_tensor(in.q.shape(), dtype, 5)),
        bias(Tensor::empty({s.tokens, s.kv_heads}, DType::kF32)),
        d_bias(Tensor::empty_like(bias)),
        result{Tensor::empty_like(in.q), Tensor::empty_like(in.q),
               Tensor::empty({s.tokens, s.heads}, DType::kF32),
               Tensor::empty({s.tokens, s.heads}, DType::kF32)},
        d_in{Tensor::empty_like(in.q), Tensor::empty_like(in.r), Tensor::empty_like(in.k),
             Tensor::empty_like(in.v)} {
    plan.segments = {{0, s.tokens, 0, s.tokens, 0}};
    plan.scale = 1 / std::sqrt(static_cast<double>(s.d));
  }

  void forward(const AttentionPlan& mask, const Tensor& key_bias = {}) {
    cpu::attention_forward(in.q, in.k, in.v, mask, result.out, result.lse, key_bias);
  }
  void backward(const AttentionPlan& mask, const Tensor& key_bias = {},
                Tensor* gradient = nullptr) {
    cpu::attention_backward(in.q, in.k, in.v, result.out, result.lse, d_out, mask, d_in.dq,
                            d_in.dk, d_in.dv, key_bias, gradient);
  }
};

struct Variant {
  const char* name;
  std::vector<int64_t> tokens;
  /// Forward and backward; called once per case, before any of them runs.
  std::pair<std::function<void()>, std::function<void()>> (*ways)(Operands&);
};

auto parallax(Operands& o) -> std::pair<std::function<void()>, std::function<void()>> {
  return {[&o] { cpu::parallax_forward(o.in, o.plan, o.result); },
          [&o] { cpu::parallax_backward(o.in, o.result, o.d_out, o.plan, o.d_in); }};
}

template <typename Bias>
AttentionPlan biased_plan(Operands& o, Bias&& bias) {
  Philox random(6);
  for (float& b : o.bias.span<float>()) b = bias(static_cast<float>(random.uniform()));
  AttentionPlan plan = o.plan;
  plan.mask.bias_window = kWindow;
  return plan;
}

auto soft(Operands& o) -> std::pair<std::function<void()>, std::function<void()>> {
  const AttentionPlan plan = biased_plan(o, [](float u) { return std::log(u + 1e-8f); });
  return {[&o, plan] { o.forward(plan, o.bias); },
          [&o, plan] { o.backward(plan, o.bias, &o.d_bias); }};
}

auto hard(Operands& o) -> std::pair<std::function<void()>, std::function<void()>> {
  const AttentionPlan plan = biased_plan(
      o, [](float u) { return u < 0.1f ? 0.0f : -std::numeric_limits<float>::infinity(); });
  return {[&o, plan] { o.forward(plan, o.bias); }, [&o, plan] { o.backward(plan, o.bias); }};
}

const std::vector<Variant>& variants() {
  static const std::vector<Variant> kVariants = {{"parallax", {512, 2048}, parallax},
                                                 {"soft", {2048, 8192}, soft},
                                                 {"hard", {2048, 8192}, hard}};
  return kVariants;
}

/// Seconds of one repetition: of the clock, and of the processor in all threads.
struct Repetition {
  double forward = 0, both = 0, processor = 0;
};

double processor_seconds() {
  timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

template <typename Forward, typename Backward>
Repetition measure(Forward&& forward, Backward&& backward) {
  Repetition r;
  const double processor = processor_seconds();
  const Timer timer;
  forward();
  r.forward = timer.seconds();
  backward();
  r.both = timer.seconds();
  r.processor = processor_seconds() - processor;
  return r;
}

double least(const std::vector<Repetition>& of, double Repetition::*what) {
  double best = std::numeric_limits<double>::infinity();
  for (const Repetition& r : of) best = std::min(best, r.*what);
  return best;
}

double ratio(const std::vector<Repetition>& of, const std::vector<Repetition>& to,
             double Repetition::*what) {
  std::vector<double> ratios;
  for (size_t i = 0; i < of.size(); ++i) ratios.push_back(of[i].*what / (to[i].*what));
  std::sort(ratios.begin(), ratios.end());
  const size_t half = ratios.size() / 2;
  return ratios.size() % 2 == 1 ? ratios[half] : (ratios[half - 1] + ratios[half]) / 2;
}

void bench(const Variant& variant, const Shapes& s, DType dtype, double seconds) {
  Operands o(s, dtype);
  const auto [forward, backward] = variant.ways(o);
  const auto plain = [&] {
    return measure([&] { o.forward(o.plan); }, [&] { o.backward(o.plan); });
  };
  plain();
  measure(forward, backward);
  std::vector<Repetition> base, own;
  const Timer total;
  do {
    base.push_back(plain());
    own.push_back(measure(forward, backward));
  } while (total.seconds() < seconds || base.size() < 5);
  constexpr auto kForward = &Repetition::forward, kBoth = &Repetition::both,
                 kProcessor = &Repetition::processor;
  fmt::print("{:>8} {:>5} {:>6} {:>2}/{:<2} {:>4} {:>9.2f} {:>9.2f} {:>9.2f} {:>9.2f} {:>4} "
             "{:>6.2f} {:>6.2f} {:>6.2f}\n",
             variant.name, dtype_name(dtype), s.tokens, s.heads, s.kv_heads, s.d,
             least(base, kForward) * 1e3, least(base, kBoth) * 1e3, least(own, kForward) * 1e3,
             least(own, kBoth) * 1e3, base.size(), ratio(own, base, kForward),
             ratio(own, base, kBoth), ratio(own, base, kProcessor));
}

void run(const char* wanted, double seconds, int64_t longest) {
  const CpuInfo& cpu = cpu_info();
  fmt::print("{}, {} threads, {}{}{}\n", cpu.model, omp_get_max_threads(),
             simd_level_name(cpu.simd), cpu.avx512_bf16 ? ", avx512-bf16" : "",
             cpu.amx_bf16 ? ", amx-bf16" : "");
  fmt::print("{:>8} {:>5} {:>6} {:>5} {:>4} {:>19} {:>19} {:>4} {:>6} {:>6} {:>6}\n", "variant",
             "dtype", "tokens", "heads", "d", "softmax fwd, f+b ms", "variant fwd, f+b ms", "reps",
             "fwd", "f+b", "cpu");
  bool found = false;
  for (const Variant& variant : variants()) {
    if (std::strcmp(wanted, "all") != 0 && std::strcmp(wanted, variant.name) != 0) continue;
    found = true;
    for (const DType dtype : {DType::kF32, DType::kBF16})
      for (const int64_t tokens : variant.tokens) {
        if (tokens > longest) continue;
        bench(variant, {tokens, 8, 8, 64}, dtype, seconds);
        bench(variant, {tokens, 8, 4, 128}, dtype, seconds);  // two queries to a key, as at 0.6B
      }
  }
  if (!found) fail<Error>("expected parallax, soft, hard or all, got {}", wanted);
}

}  // namespace
}  // namespace lh

int main(int argc, char** argv) {
  lh::start_again_with_brief_waits(argv);
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  try {
    lh::run(argc > 1 ? argv[1] : "all", argc > 2 ? std::atof(argv[2]) : 2,
            argc > 3 ? std::atoll(argv[3]) : 8192);
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench_variants: {}\n", error.what());
    return 1;
  }
  return 0;
}
