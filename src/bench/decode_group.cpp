// Attention of one new token per sequence over a long context: every key and value is read once.
#include <cmath>

#include "backend/attention.h"
#include "bench/yardstick.h"

namespace lh::bench {

void bench_decode(const Setup& setup, Report& report) {
  const Yardstick copy = copy_yardstick(setup);
  struct Case {
    int64_t batch, context, heads, kv_heads;
  };
  const bool toy = setup.scale == Scale::kToy, full = setup.scale == Scale::kFull;
  const Case cases[] = {toy    ? Case{2, 64, 2, 1}
                        : full ? Case{32, 16384, 32, 8}
                               : Case{4, 2048, 8, 2},
                        toy    ? Case{1, 96, 2, 2}
                        : full ? Case{1, 131072, 32, 8}
                               : Case{1, 8192, 8, 2}};
  for (const Case& c : cases) {
    const int64_t d = 128;
    AttentionPlan plan;
    plan.scale = 1 / std::sqrt(static_cast<double>(d));
    for (int64_t i = 0; i < c.batch; ++i)
      plan.segments.push_back({i, 1, i * c.context, c.context, c.context - 1});
    const Tensor q = random_tensor({c.batch, c.heads, d}, setup.dtype, setup.device, 1);
    const Shape cache{c.batch * c.context, c.kv_heads, d};
    const Tensor k = random_tensor(cache, setup.dtype, setup.device, 2);
    const Tensor v = random_tensor(cache, setup.dtype, setup.device, 3);
    Tensor out = Tensor::empty_like(q);
    Tensor lse = Tensor::empty({c.batch, c.heads}, DType::kF32, setup.device);
    Row row{.group = "decode", .name = "attention, one token",
            .shape = fmt::format("{}x{} {}/{} heads d{}", c.batch, c.context, c.heads,
                                 c.kv_heads, d),
            .dtype = dtype_name(setup.dtype)};
    row.bytes = static_cast<double>(k.bytes() + v.bytes() + q.bytes() + out.bytes());
    add_against(
        copy,
        [&] { LH_DISPATCH(setup.device, "bench", attention_forward(q, k, v, plan, out, lse)); },
        setup, std::move(row), report);
  }
}

}  // namespace lh::bench
