// Self-pruned caches on a device: append and attention over pages equal the CPU's, and a recorded step
// is launched again while the caches grow.
#include "paged_support.h"

#include "cuda_case.h"

using namespace lh;
using namespace lh::test;

namespace {

/// Every tensor of a cache on the host.
std::vector<Tensor> contents(const GatedCache& cache) {
  std::vector<Tensor> all;
  for (const Tensor* t : {&cache.keys.k, &cache.keys.v, &cache.keys.lengths, &cache.seen, &cache.bits})
    all.push_back(t->to(kCpuDevice));
  return all;
}

void check_equal(const GatedCache& got, const GatedCache& want) {
  const auto a = contents(got), b = contents(want);
  for (size_t i = 0; i < a.size(); ++i) CHECK(bitwise_equal(a[i], b[i]));
}

constexpr int64_t kHeads = 4, kGroup = 3, kD = 16;

}  // namespace

TEST_CASE("cuda append to self-pruned caches is the CPU's, bit for bit") {
  if (no_device()) return;
  for (const DType dtype : kTypes)
    for (const int64_t window : {1, 16, 21}) {
      GatedCache on_cpu = empty_cache(kHeads, window, 200, kD, dtype, kCpuDevice),
                 on_gpu = empty_cache(kHeads, window, 200, kD, dtype, kGpu);
      uint64_t seed = 1;
      for (const int64_t tokens : {1, 1, 40, 1, 1, 1, 7, 60}) {
        const Tensor k = random_tensor({tokens, kHeads, kD}, dtype, seed++),
                     v = random_tensor({tokens, kHeads, kD}, dtype, seed++),
                     gates = random_gates(tokens, kHeads, dtype, seed++);
        cpu::gated_append(k, v, gates, on_cpu);
        cuda::gated_append(k.to(kGpu), v.to(kGpu), gates.to(kGpu), on_gpu);
        check_equal(on_gpu, on_cpu);
      }
    }
}

TEST_CASE("cuda attention over pages equals the CPU's over ragged lengths and groups") {
  if (no_device()) return;
  for (const PagedCase& c : {PagedCase{{0, 1, 16, 17, 700}, 3}, PagedCase{{90, 400}, 20, 32, 16, 64}})
    for (const DType dtype : kTypes) {
      const auto n = static_cast<int64_t>(c.lengths.size());
      const Case attention{{normal({n, c.heads, c.d}, 1), normal(c.pool(c.d), 2),
                            normal(c.pool(c.v_d), 3), c.table(), c.length_tensor()},
                           {Tensor::zeros({n, c.heads, c.v_d}, DType::kF64),
                            Tensor::zeros({n, c.heads}, DType::kF64)},
                           {false, true}};
      attention.LH_BOTH(dtype, dtype == DType::kBF16 ? 4e-3 : 2e-5,
                        paged_attention(in[0], c.keys(in[1], in[2], in[3], in[4]), 0.25, out[0],
                                        out[1]));
    }
}

TEST_CASE("a recorded decoding step is launched again while self-pruned caches grow") {
  if (no_device()) return;
  for (const DType dtype : kTypes) {
    constexpr int64_t kTokens = 60, kWindow = 9;
    GatedCache on_cpu = empty_cache(kHeads, kWindow, kTokens, kD, dtype, kCpuDevice),
               on_gpu = empty_cache(kHeads, kWindow, kTokens, kD, dtype, kGpu);
    const auto input = [&](int64_t token, uint64_t seed, const Shape& shape) {
      return random_tensor(shape, dtype, seed + static_cast<uint64_t>(3 * token));
    };
    const Shape keys{1, kHeads, kD}, queries{kHeads, kGroup, kD};
    Tensor k = input(0, 1, keys).to(kGpu), v = input(0, 2, keys).to(kGpu),
           gates = random_gates(1, kHeads, dtype, 0).to(kGpu), q = input(0, 3, queries).to(kGpu),
           out = Tensor::empty(queries, dtype, kGpu),
           lse = Tensor::empty({kHeads, kGroup}, DType::kF32, kGpu);
    const auto step = [&] {
      cuda::gated_append(k, v, gates, on_gpu);
      cuda::paged_attention(q, on_gpu.keys, 0.25, out, lse);
    };
    std::unique_ptr<gpu::Graph> graph;
    for (int64_t token = 0; token < kTokens; ++token) {
      const Tensor new_k = input(token, 1, keys), new_v = input(token, 2, keys),
                   new_gates = random_gates(1, kHeads, dtype, static_cast<uint64_t>(token)),
                   new_q = input(token, 3, queries);
      k.copy_bytes_from(new_k);
      v.copy_bytes_from(new_v);
      gates.copy_bytes_from(new_gates);
      q.copy_bytes_from(new_q);
      if (token == 0) {
        step();
        gpu::Capture capture(kGpu);
        step();
        graph = capture.finish();
      } else {
        REQUIRE(graph->launch());
      }
      cpu::gated_append(new_k, new_v, new_gates, on_cpu);
      check_equal(on_gpu, on_cpu);
      Tensor want = Tensor::empty(queries, dtype);
      Tensor want_lse = Tensor::empty({kHeads, kGroup}, DType::kF32);
      cpu::paged_attention(new_q, on_cpu.keys, 0.25, want, want_lse);
      const auto got = to_doubles(out.to(kCpuDevice)), expected = to_doubles(want);
      const double bound = dtype == DType::kBF16 ? 0.02 : 1e-5;
      for (size_t i = 0; i < got.size(); ++i) CHECK(std::abs(got[i] - expected[i]) < bound);
    }
  }
}
