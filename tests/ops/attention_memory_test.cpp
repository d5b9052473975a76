// What mixing needs beside its operands grows with the tokens, not with their pairs.
#include <doctest/doctest.h>

#include "autograd/engine.h"
#include "ops/attention.h"
#include "ops/parallax_attention.h"
#include "runtime/memory.h"
#include "support/compare.h"

namespace {

using namespace lh;
using namespace lh::test;

constexpr int64_t kHeads = 4, kKvHeads = 2, kWidth = 32;

/// Bytes at the peak of forward and backward of one document, operands and their gradients included.
template <typename Mix>
int64_t peak_of(int64_t tokens, DType dtype, const Mix& mix) {
  auto plan = std::make_shared<AttentionPlan>();
  plan->segments = {{0, tokens, 0, tokens, 0}};
  plan->scale = 0.2;
  const int64_t before = memory_report().total_now;
  reset_memory_peak();
  const auto leaf = [&](int64_t heads, uint64_t seed) {
    return Variable::leaf(random_tensor({tokens, heads, kWidth}, dtype, seed));
  };
  const Variable q = leaf(kHeads, 1), r = leaf(kHeads, 2), k = leaf(kKvHeads, 3), v = leaf(kKvHeads, 4);
  const Variable bias = Variable::leaf(random_tensor({tokens, kKvHeads}, DType::kF32, 5));
  const Variable out = mix(q, r, k, v, bias, plan);
  backward(out, Tensor::zeros(out.shape(), dtype));
  return memory_report().total_peak - before;
}

template <typename Mix>
void check_linear(const char* name, const Mix& mix) {
  CAPTURE(name);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const int64_t some = peak_of(1024, dtype, mix), twice = peak_of(2048, dtype, mix), more = peak_of(4096, dtype, mix);
    // Scratch of a fixed size makes it less than twice; scores of all pairs, 16 MiB a head, would make it four times.
    CHECK(twice <= 2 * some);
    CHECK(more <= 2 * twice);
    CHECK(more < 4 * 4096 * 4096);
  }
}

TEST_CASE("memory of softmax attention, with and without biases, and of parallax is linear in the tokens") {
  check_linear("attention", [](const auto& q, const auto&, const auto& k, const auto& v, const auto&, auto plan) {
    return attention(q, k, v, plan);
  });
  check_linear("bias", [](const auto& q, const auto&, const auto& k, const auto& v, const auto& bias, auto plan) {
    return attention(q, k, v, plan, bias);
  });
  check_linear("parallax", [](const auto& q, const auto& r, const auto& k, const auto& v, const auto&, auto plan) {
    return parallax_attention(q, r, k, v, plan).out;
  });
}

}  // namespace
