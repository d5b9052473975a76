// Speed of Parallax against softmax attention of the same shape, measured in turn in the same run.
//   bench_parallax [seconds per line]
// Twice the products forward, 8 against 5 backward: 1.7 of the arithmetic. Best of several runs.
#include <fmt/format.h>
#include <omp.h>

#include <cstdlib>
#include <limits>

#include "backend/parallax.h"
#include "base/philox.h"
#include "base/timer.h"
#include "runtime/brief_waits.h"
#include "runtime/cpu_info.h"

namespace lh {
namespace {

Tensor random_tensor(const Shape& shape, DType dtype, uint64_t seed) {
  Tensor t = Tensor::empty(shape, dtype);
  Philox random(seed);
  dispatch_float(dtype, "random", [&]<typename T>() {
    for (T& x : t.span<T>()) x = T(static_cast<accumulate_t<T>>(random.normal()));
  });
  return t;
}

struct Seconds {
  double forward = std::numeric_limits<double>::infinity(), backward = forward;
};

template <typename Forward, typename Backward>
void measure(Seconds& best, Forward&& forward, Backward&& backward) {
  Timer timer;
  forward();
  best.forward = std::min(best.forward, timer.seconds());
  timer = Timer();
  backward();
  best.backward = std::min(best.backward, timer.seconds());
}

void bench(int64_t length, int64_t heads, int64_t kv_heads, int64_t d, DType dtype,
           double seconds) {
  AttentionPlan plan;
  plan.segments = {{0, length, 0, length, 0}};
  plan.scale = 0.125;
  const ParallaxInputs in{
      random_tensor({length, heads, d}, dtype, 1), random_tensor({length, heads, d}, dtype, 2),
      random_tensor({length, kv_heads, d}, dtype, 3), random_tensor({length, kv_heads, d}, dtype, 4)};
  const Tensor d_out = random_tensor(in.q.shape(), dtype, 5);
  ParallaxResult result{Tensor::empty_like(in.q), Tensor::empty_like(in.q),
                        Tensor::empty({length, heads}, DType::kF32),
                        Tensor::empty({length, heads}, DType::kF32)};
  ParallaxGradients d_in{Tensor::empty_like(in.q), Tensor::empty_like(in.r),
                         Tensor::empty_like(in.k), Tensor::empty_like(in.v)};
  Seconds plain, parallax;
  const Timer total;
  do {
    measure(
        plain, [&] { cpu::attention_forward(in.q, in.k, in.v, plan, result.out, result.lse); },
        [&] {
          cpu::attention_backward(in.q, in.k, in.v, result.out, result.lse, d_out, plan, d_in.dq,
                                  d_in.dk, d_in.dv);
        });
    measure(
        parallax, [&] { cpu::parallax_forward(in, plan, result); },
        [&] { cpu::parallax_backward(in, result, d_out, plan, d_in); });
  } while (total.seconds() < seconds);
  fmt::print("{:>5} {:>6} {:>2}/{:<2} {:>4} {:>9.2f} {:>9.2f} {:>9.2f} {:>9.2f} {:>6.2f} {:>6.2f}\n",
             dtype_name(dtype), length, heads, kv_heads, d, plain.forward * 1e3,
             (plain.forward + plain.backward) * 1e3, parallax.forward * 1e3,
             (parallax.forward + parallax.backward) * 1e3, parallax.forward / plain.forward,
             (parallax.forward + parallax.backward) / (plain.forward + plain.backward));
}

}  // namespace
}  // namespace lh

int main(int argc, char** argv) {
  using lh::DType;
  lh::start_again_with_brief_waits(argv);
  const double seconds = argc > 1 ? std::atof(argv[1]) : 2;
  const lh::CpuInfo& cpu = lh::cpu_info();
  fmt::print("{} threads, {}{}{}\n", omp_get_max_threads(), lh::simd_level_name(cpu.simd),
             cpu.avx512_bf16 ? ", avx512-bf16" : "", cpu.amx_bf16 ? ", amx-bf16" : "");
  fmt::print("{:>5} {:>6} {:>5} {:>4} {:>19} {:>19} {:>13}\n", "dtype", "tokens", "heads", "d",
             "softmax fwd, f+b ms", "parallax fwd, f+b", "ratio");
  for (const DType dtype : {DType::kF32, DType::kBF16})
    for (const int64_t length : {512, 2048, 8192}) {
      lh::bench(length, 8, 8, 64, dtype, seconds);
      lh::bench(length, 8, 4, 128, dtype, seconds);
    }
  return 0;
}
