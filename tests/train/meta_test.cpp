// A training step on the meta device charges every owner what the same step charges on the CPU.
#include <doctest/doctest.h>

#include "autograd/engine.h"
#include "optim/optimizer.h"
#include "train/train_support.h"

namespace {

using namespace lh;
using namespace lh::test;

/// The table of a step's allocations, at its peak; what was live before is taken out.
MemoryReport memory_of_a_step(Device device, const std::string& optimizer_kind, DType compute,
                              bool recompute) {
  const MemoryReport before = memory_report(device.kind);
  reset_memory_peak(device.kind);
  // Large enough that scratch of the matrix library, one activation of one product, is small beside it.
  ModelConfig config = tiny_model(2000);
  config.num_layers = 6;
  config.hidden_size = 256;
  config.intermediate_size = 512;
  config.head_dim = 32;
  config.max_position = 2048;
  Decoder model(config, compute, 1, device);
  OptimConfig optim;
  optim.kind = optimizer_kind;
  const auto optimizer = make_optimizer(optim, model.parameters());
  const BatchTensors batch = BatchTensors::from(
      make_batch({random_document(1800, 2000, 1), random_document(413, 2000, 2)}), device);
  for (int step = 0; step < 2; ++step) {
    model.parameters().zero_grad();
    backward(model.loss(batch.tokens, batch.targets, batch.layout, recompute).loss_sum);
    optimizer->step(1, 1);
  }
  MemoryReport report = memory_report(device.kind);
  for (int i = 0; i < kMemoryOwners; ++i) {
    const auto owner = static_cast<size_t>(i);
    report.now[owner] -= before.now[owner];
    report.at_peak[owner] -= before.now[owner];
  }
  report.total_peak -= before.total_now;
  return report;
}

}  // namespace

TEST_CASE("a step on the meta device charges what a real one does") {
  for (const char* kind : {"adamw", "muon"})
    for (const DType compute : {DType::kF32, DType::kBF16})
      for (const bool recompute : {false, true}) {
        CAPTURE(std::string(kind));
        CAPTURE(std::string(dtype_name(compute)));
        CAPTURE(recompute);
        const MemoryReport real = memory_of_a_step(kCpuDevice, kind, compute, recompute);
        const MemoryReport meta = memory_of_a_step(kMetaCpuDevice, kind, compute, recompute);
        for (const MemoryOwner owner :
             {MemoryOwner::kWeights, MemoryOwner::kGradients, MemoryOwner::kOptimizer}) {
          CAPTURE(memory_owner_name(owner));
          CHECK(meta.now[static_cast<size_t>(owner)] == real.now[static_cast<size_t>(owner)]);
        }
        CHECK(static_cast<double>(meta.total_peak) ==
              doctest::Approx(static_cast<double>(real.total_peak)).epsilon(0.01));
      }
}

TEST_CASE("tensors on the meta device have shapes and no values") {
  const Tensor t = Tensor::zeros({3, 4}, DType::kF32, kMetaCudaDevice);
  CHECK(t.str() == "f32[3, 4] on meta");
  CHECK(t.slice(0, 1, 3).reshape({8}).numel() == 8);
  CHECK(Tensor::empty({1}, DType::kF64, kMetaCudaDevice).item() == 0);
  CHECK_THROWS(t.span<float>());
  CHECK(Tensor::zeros({2}, DType::kI32).to(kMetaCudaDevice).device() == kMetaCudaDevice);
}
