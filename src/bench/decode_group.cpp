// Attention of one new token per sequence over a long context: every key and value is read once. The same for
// Parallax, whose probe reads the same keys; and under SP-KV, where a step appends the token to pruned caches and reads
// what they hold.
#include <cmath>
#include <numeric>

#include "backend/attention.h"
#include "backend/elementwise.h"
#include "backend/gated_append.h"
#include "backend/parallax.h"
#include "bench/yardstick.h"

namespace lh::bench {
namespace {

struct Case {
  int64_t batch, context, heads, kv_heads;
  static constexpr int64_t d = 128;

  std::string shape() const {
    return fmt::format("{}x{} {}/{} heads d{}", batch, context, heads, kv_heads, d);
  }
};

std::vector<Case> cases(Scale scale) {
  switch (scale) {
    case Scale::kToy: return {{2, 64, 2, 1}, {1, 96, 2, 2}};
    case Scale::kSmall: return {{4, 2048, 8, 2}, {1, 8192, 8, 2}};
    case Scale::kFull: return {{32, 16384, 32, 8}, {16, 32768, 32, 8}, {1, 131072, 32, 8}};
  }
  return {};
}

/// Those that Parallax is measured at: on a GPU from a single user to a full batch.
std::vector<Case> parallax_cases(Scale scale) {
  if (scale != Scale::kFull) return cases(scale);
  std::vector<Case> all;
  for (int64_t batch = 1; batch <= 32; batch *= 2)
    for (int64_t context = 512; context <= 16384; context *= 2) all.push_back({batch, context, 16, 8});
  return all;
}

/// One step over all keys, and the bytes it reads and writes.
struct Step {
  std::function<void()> run;
  double bytes = 0;
};

AttentionPlan one_token_plan(const Case& c) {
  AttentionPlan plan;
  plan.scale = 1 / std::sqrt(static_cast<double>(c.d));
  for (int64_t i = 0; i < c.batch; ++i)
    plan.segments.push_back({i, 1, i * c.context, c.context, c.context - 1});
  return plan;
}

Step dense_step(const Case& c, const Setup& setup) {
  const AttentionPlan plan = one_token_plan(c);
  const Tensor q = random_tensor({c.batch, c.heads, c.d}, setup.dtype, setup.device, 1);
  const Shape cache{c.batch * c.context, c.kv_heads, c.d};
  const Tensor k = random_tensor(cache, setup.dtype, setup.device, 2);
  const Tensor v = random_tensor(cache, setup.dtype, setup.device, 3);
  const Tensor lse = Tensor::empty({c.batch, c.heads}, DType::kF32, setup.device);
  return {[=, device = setup.device, out = Tensor::empty_like(q)]() mutable {
            Tensor statistics = lse;
            LH_DISPATCH(device, "bench", attention_forward(q, k, v, plan, out, statistics));
          },
          static_cast<double>(k.bytes() + v.bytes() + 2 * q.bytes())};
}

Step parallax_step(const Case& c, const Setup& setup) {
  const AttentionPlan plan = one_token_plan(c);
  const Shape rows{c.batch, c.heads, c.d}, cache{c.batch * c.context, c.kv_heads, c.d};
  const ParallaxInputs in{random_tensor(rows, setup.dtype, setup.device, 1),
                          random_tensor(rows, setup.dtype, setup.device, 2),
                          random_tensor(cache, setup.dtype, setup.device, 3),
                          random_tensor(cache, setup.dtype, setup.device, 4)};
  const Tensor lse = Tensor::empty({c.batch, c.heads}, DType::kF32, setup.device);
  return {[=, device = setup.device,
           result = ParallaxResult{Tensor::empty_like(in.q), Tensor::empty_like(in.q), lse,
                                   Tensor::empty_like(lse)}]() mutable {
            LH_DISPATCH(device, "bench", parallax_forward(in, plan, result));
          },
          static_cast<double>(in.k.bytes() + in.v.bytes() + 4 * in.q.bytes())};
}

/// SP-KV with a window of 128 where kv heads keep from 0 to 40 % of the older keys, 20 % on average, in
/// pages that lie anywhere in the pool.
Step pruned_step(const Case& c, const Setup& setup) {
  constexpr int64_t kPageRows = 16;
  const int64_t window = std::min<int64_t>(128, c.context / 2), sequences = c.batch * c.kv_heads;
  const int64_t width = c.context / kPageRows;
  GatedCache cache;
  std::vector<int32_t> lengths, table(static_cast<size_t>(sequences * width));
  int64_t keys = 0, pages = 0;
  for (int64_t s = 0; s < sequences; ++s) {
    const double share = 0.4 * (static_cast<double>(s % c.kv_heads) + 0.5) /
                         static_cast<double>(c.kv_heads);
    const int64_t length =
        window + static_cast<int64_t>(share * static_cast<double>(c.context - window));
    lengths.push_back(static_cast<int32_t>(length));
    cache.keys.capacities.push_back(length);
    keys += length;
    pages += (length + kPageRows - 1) / kPageRows;
  }
  int64_t stride = pages * 5 / 8 | 1;  // visits every page once, none beside the one before
  while (std::gcd(stride, pages) != 1) stride += 2;
  for (int64_t s = 0, next = 0; s < sequences; ++s)
    for (int64_t i = 0; i * kPageRows < lengths[static_cast<size_t>(s)]; ++i, ++next)
      table[static_cast<size_t>(s * width + i)] = static_cast<int32_t>(next * stride % pages);
  const auto filled = [&](int32_t value) {
    return Tensor::from(std::vector<int32_t>(static_cast<size_t>(sequences), value), {sequences})
        .to(setup.device);
  };
  const Shape pool{pages, kPageRows, c.d};
  cache.keys.k = random_tensor(pool, setup.dtype, setup.device, 2);
  cache.keys.v = random_tensor(pool, setup.dtype, setup.device, 3);
  cache.keys.table = Tensor::from(table, {sequences, width}).to(setup.device);
  cache.keys.lengths = Tensor::from(lengths, {sequences}).to(setup.device);
  cache.seen = filled(static_cast<int32_t>(c.context));
  // Tokens that do not outlive the window: the caches stay as they are, however often this runs.
  cache.bits = Tensor::zeros({sequences, window}, DType::kU8, setup.device);
  Tensor gates = Tensor::empty({1, sequences}, DType::kF32, setup.device);
  LH_DISPATCH(setup.device, "bench", fill(gates, -INFINITY));
  const Tensor q = random_tensor({sequences, c.heads / c.kv_heads, c.d}, setup.dtype,
                                 setup.device, 1);
  const Tensor token = random_tensor({1, sequences, c.d}, setup.dtype, setup.device, 4);
  const Tensor lse = Tensor::empty({sequences, q.size(1)}, DType::kF32, setup.device);
  const double scale = 1 / std::sqrt(static_cast<double>(c.d));
  const double row_bytes = static_cast<double>(2 * c.d) * static_cast<double>(dtype_size(setup.dtype));
  return {[=, device = setup.device, out = Tensor::empty_like(q)]() mutable {
            Tensor statistics = lse;
            LH_DISPATCH(device, "bench", gated_append(token, token, gates, cache));
            LH_DISPATCH(device, "bench", paged_attention(q, cache.keys, scale, out, statistics));
          },
          static_cast<double>(keys) * row_bytes + static_cast<double>(2 * q.bytes())};
}

}  // namespace

void bench_decode(const Setup& setup, Report& report) {
  const Yardstick copy = copy_yardstick(setup);
  for (const Case& c : cases(setup.scale)) {
    const Step dense = dense_step(c, setup), pruned = pruned_step(c, setup);
    Row row{.group = "decode", .name = "attention, one token", .shape = c.shape(),
            .dtype = dtype_name(setup.dtype), .bytes = dense.bytes};
    add_against(copy, dense.run, setup, row, report);
    row.name = "sp_kv keeping 20 %, one token";
    row.bytes = pruned.bytes;
    if (setup.has_targets() && c.batch == 16 && c.context == 32768)
      row.target = {.of = Target::Of::kSpeedAtLeast, .bound = 3};
    add_same_job(dense.run, "attention over all keys", {{pruned.run, row}}, setup, report, setup.effort());
  }
  for (const Case& c : parallax_cases(setup.scale)) {
    const Step step = parallax_step(c, setup);
    Row row{.group = "decode", .name = "parallax, one token", .shape = c.shape(),
            .dtype = dtype_name(setup.dtype), .bytes = step.bytes};
    if (setup.has_targets())
      row.target = {.of = Target::Of::kTimeAtMost, .bound = 1, .pytorch_way = "flash"};
    add_against(copy, step.run, setup, row, report);
  }
}

}  // namespace lh::bench
