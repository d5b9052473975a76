// Speed of softmax attention against the speed of a matrix product measured in the same run.
//   bench_attention [seconds per line] [longest sequence]
// GFLOP/s counts the pairs the mask lets through: 4 d per pair and head forward (two products),
// 10 d backward (five). Best of several runs; scratch is what the call allocates at its peak.
#include <fmt/format.h>
#include <omp.h>

#include <cstdlib>
#include <cstring>
#include <limits>

#include "backend/attention.h"
#include "backend/matmul.h"
#include "base/timer.h"
#include "runtime/cpu_info.h"
#include "runtime/brief_waits.h"
#include "runtime/memory.h"

namespace lh {
namespace {

double g_seconds = 1;
int64_t g_longest = 32768;

template <typename F>
double best_seconds(F&& run) {
  double best = std::numeric_limits<double>::infinity();
  const Timer total;
  do {
    const Timer timer;
    run();
    best = std::min(best, timer.seconds());
  } while (total.seconds() < g_seconds);
  return best;
}

Tensor random_tensor(const Shape& shape, DType dtype) {
  Tensor t = Tensor::empty(shape, dtype);
  uint64_t state = 1;
  dispatch_float(dtype, "random", [&]<typename T>() {
    for (T& x : t.span<T>()) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      x = T(static_cast<accumulate_t<T>>(static_cast<double>(state >> 40) / (1 << 23) - 1));
    }
  });
  return t;
}

double gemm_peak(DType dtype) {
  const int64_t n = 2048;
  const Tensor a = random_tensor({n, n}, dtype), b = random_tensor({n, n}, dtype);
  Tensor c = Tensor::empty({n, n}, dtype);
  const double s = best_seconds([&] { cpu::gemm(a, false, b, true, c, false); });
  return 2.0 * n * n * n / s;
}

struct Shapes {
  int64_t sequences, length, heads, kv_heads, d;
  AttentionMask mask;
};

double visible_pairs(const Shapes& s) {
  double pairs = 0;
  for (int64_t i = 0; i < s.length; ++i) {
    const int64_t window = s.mask.window == 0 ? i + 1 : std::min(i + 1, s.mask.window);
    pairs += static_cast<double>(window + std::min(s.mask.sinks, i + 1 - window));
  }
  return pairs * static_cast<double>(s.sequences * s.heads);
}

void bench_training(const Shapes& s, DType dtype, double peak) {
  if (s.length > g_longest) return;
  const int64_t rows = s.sequences * s.length;
  AttentionPlan plan;
  for (int64_t i = 0; i < s.sequences; ++i)
    plan.segments.push_back({i * s.length, s.length, i * s.length, s.length, 0});
  plan.mask = s.mask;
  plan.scale = 0.125;
  const Tensor q = random_tensor({rows, s.heads, s.d}, dtype);
  const Tensor k = random_tensor({rows, s.kv_heads, s.d}, dtype),
               v = random_tensor(k.shape(), dtype);
  const Tensor d_out = random_tensor(q.shape(), dtype);
  Tensor out = Tensor::empty_like(q), lse = Tensor::empty({rows, s.heads}, DType::kF32);
  Tensor dq = Tensor::empty_like(q), dk = Tensor::empty_like(k), dv = Tensor::empty_like(v);
  reset_memory_peak();
  const int64_t before = memory_report().total_now;
  const double forward = best_seconds([&] { cpu::attention_forward(q, k, v, plan, out, lse); });
  const double backward =
      best_seconds([&] { cpu::attention_backward(q, k, v, out, lse, d_out, plan, dq, dk, dv); });
  const double scratch = static_cast<double>(memory_report().total_peak - before);
  const double unit = visible_pairs(s) * static_cast<double>(s.d);
  const double both = 14 * unit / (forward + backward);
  fmt::print(
      "{:>5} {:>3}x{:<6} {:>2}/{:<2} {:>4} {:>6} {:>3} {:>9.2f} {:>9.2f} {:>8.0f} {:>8.0f} "
      "{:>8.0f} {:>5.0f}% {:>8.1f} {:>9.2f}\n",
      dtype_name(dtype), s.sequences, s.length, s.heads, s.kv_heads, s.d, s.mask.window,
      s.mask.sinks, forward * 1e3, (forward + backward) * 1e3, 4 * unit / forward / 1e9,
      10 * unit / backward / 1e9, both / 1e9, 100 * both / peak, scratch / (1 << 20),
      (forward + backward) / static_cast<double>(rows) * 1e6);
}

double read_bandwidth() {
  const Tensor t = Tensor::zeros({int64_t{256} << 20}, DType::kU8);
  const auto words = reinterpret_cast<const uint64_t*>(t.raw());
  const int64_t count = t.numel() / 8;
  uint64_t sum = 0;
  const double s = best_seconds([&] {
#pragma omp parallel for simd reduction(+ : sum)
    for (int64_t i = 0; i < count; ++i) sum += words[i];
  });
  return sum == 1 ? 0 : static_cast<double>(t.bytes()) / s;
}

void bench_decoding(int64_t cache, int64_t heads, int64_t kv_heads, int64_t d, DType dtype,
                    double bandwidth) {
  AttentionPlan plan;
  plan.segments = {{0, 1, 0, cache, cache - 1}};
  plan.scale = 0.125;
  // Several caches in turn, so that no cache of the processor holds them.
  const int64_t bytes = 2 * cache * kv_heads * d * static_cast<int64_t>(dtype_size(dtype));
  const int64_t copies = std::max<int64_t>(1, (int64_t{1} << 30) / bytes);
  const Tensor q = random_tensor({1, heads, d}, dtype);
  const Tensor k = random_tensor({copies * cache, kv_heads, d}, dtype);
  const Tensor v = random_tensor({copies * cache, kv_heads, d}, dtype);
  Tensor out = Tensor::empty_like(q), lse = Tensor::empty({1, heads}, DType::kF32);
  const double s = best_seconds([&] {
                     for (int64_t i = 0; i < copies; ++i) {
                       plan.segments[0].key_begin = i * cache;
                       cpu::attention_forward(q, k, v, plan, out, lse);
                     }
                   }) /
                   static_cast<double>(copies);
  const double rate = static_cast<double>(bytes) / s;
  fmt::print(
      "{:>5} {:>7} {:>2}/{:<2} {:>4} {:>10.1f} us {:>7.1f} GB/s {:>4.0f}% of read bandwidth\n",
      dtype_name(dtype), cache, heads, kv_heads, d, s * 1e6, rate / 1e9, 100 * rate / bandwidth);
}

void run() {
  const CpuInfo& cpu = cpu_info();
  fmt::print("{} threads, {}{}{}\n", omp_get_max_threads(), simd_level_name(cpu.simd),
             cpu.avx512_bf16 ? ", avx512-bf16" : "", cpu.amx_bf16 ? ", amx-bf16" : "");
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const double peak = gemm_peak(dtype);
    fmt::print("\n{} matrix product {:.0f} GFLOP/s\n", dtype_name(dtype), peak / 1e9);
    fmt::print(
        "{:>5} {:>10} {:>5} {:>4} {:>6} {:>3} {:>9} {:>9} {:>8} {:>8} {:>8} {:>6} {:>8} {:>9}\n",
        "dtype", "batch", "heads", "d", "window", "snk", "fwd ms", "f+b ms", "fwd GF/s", "bwd GF/s",
        "f+b GF/s", "peak", "MiB", "us/token");
    bench_training({8, 1024, 8, 8, 64, {}}, dtype, peak);
    bench_training({8, 1024, 8, 2, 128, {}}, dtype, peak);
    bench_training({64, 128, 8, 8, 64, {}}, dtype, peak);
    for (const int64_t length : {1024, 2048, 4096, 8192, 16384, 32768})
      bench_training({1, length, 8, 8, 64, {}}, dtype, peak);
    for (const int64_t length : {4096, 32768})
      bench_training({1, length, 8, 8, 64, {512, 4}}, dtype, peak);
  }
  const double bandwidth = read_bandwidth();
  fmt::print("\ndecoding one row; read bandwidth {:.1f} GB/s\n", bandwidth / 1e9);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t cache : {128, 1024, 8192, 65536}) {
      bench_decoding(cache, 8, 8, 64, dtype, bandwidth);
      bench_decoding(cache, 16, 2, 128, dtype, bandwidth);
    }
  }
}

}  // namespace
}  // namespace lh

int main(int argc, char** argv) {
  lh::start_again_with_brief_waits(argv);
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  if (argc > 1) lh::g_seconds = std::atof(argv[1]);
  if (argc > 2) lh::g_longest = std::atoll(argv[2]);
  try {
    lh::run();
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
  return 0;
}
