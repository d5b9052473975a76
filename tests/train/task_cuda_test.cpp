// Answers scored on a CUDA device (real or emulated) against the CPU.
#include <doctest/doctest.h>

#include "runtime/gpu.h"
#include "train/evaluate_task.h"
#include "train_support.h"

namespace {

using namespace lh;
using namespace lh::test;

TEST_CASE("a task has the same loss and accuracy on a CUDA device") {
  if (gpu::device_count() == 0) {
    MESSAGE("SKIPPED: no CUDA device (" << gpu::unavailable_reason() << ")");
    return;
  }
  ModelConfig config = tiny_model(24);
  config.head_dim = 16;  // a step of the tensor cores
  config.hidden_size = 32;
  const TaskBatches batches(Task({.kind = "mqar", .length = 24, .pairs = 3, .vocab = 12}),
                            {.seq_tokens = 50, .seed = 3, .stream = 1, .end_of_text = 23}, 6);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    CAPTURE(dtype_name(dtype));
    const Decoder cpu(config, dtype, 2), gpu(config, dtype, 2, {DeviceKind::kCuda, 0});
    const auto a = evaluate_task(cpu, batches, 2, nullptr, nullptr);
    const auto b = evaluate_task(gpu, batches, 2, nullptr, nullptr);
    REQUIRE(a);
    REQUIRE(b);
    CHECK(b->loss == doctest::Approx(a->loss).epsilon(dtype == DType::kF32 ? 1e-5 : 2e-2));
    if (dtype == DType::kF32) CHECK(b->accuracy == a->accuracy);
    CHECK(b->targets == 18);
  }
}

}  // namespace
