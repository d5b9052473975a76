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
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <limits>

#include "base/timer.h"
#include "bench/attention_variants.h"
#include "runtime/brief_waits.h"
#include "runtime/cpu_info.h"

namespace lh {
namespace {

using bench::AttentionOperands, bench::AttentionShape, bench::AttentionWay;

struct Variant {
  const char* name;
  std::vector<int64_t> tokens;
  AttentionWay (*way)(AttentionOperands&, const AttentionPlan&);
};

const std::vector<Variant>& variants() {
  static const std::vector<Variant> kVariants = {{"parallax", {512, 2048}, bench::parallax_way},
                                                 {"soft", {2048, 8192}, bench::soft_way},
                                                 {"hard", {2048, 8192}, bench::hard_way}};
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

void compare(const Variant& variant, const AttentionShape& s, DType dtype, double seconds) {
  AttentionOperands o(s, dtype, kCpuDevice);
  const AttentionPlan plan = bench::causal_plan({&s.rows, 1}, s.head_dim);
  const auto [forward, backward] = variant.way(o, plan);
  const auto plain = [&] {
    return measure([&] { o.forward(plan); }, [&] { o.backward(plan); });
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
             variant.name, dtype_name(dtype), s.rows, s.heads, s.kv_heads, s.head_dim,
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
        compare(variant, {tokens, 8, 8, 64}, dtype, seconds);
        compare(variant, {tokens, 8, 4, 128}, dtype, seconds);  // two queries to a key, as at 0.6B
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
