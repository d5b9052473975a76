// A training step on the meta device that stands for a CUDA device charges every owner what the same step charges
// on the device (real or emulated), scratch memory of kernels included.
#include <doctest/doctest.h>

#include "autograd/engine.h"
#include "backend/matmul.h"
#include "optim/clip.h"
#include "optim/optimizer.h"
#include "runtime/gpu.h"
#include "train/train_support.h"

namespace {

using namespace lh;
using namespace lh::test;

struct Step {
  std::string mixer = "softmax", optimizer = "adamw";
  DType compute = DType::kF32;
  bool recompute = false;
};

/// Live bytes of the owners at the peak of a step, what was live before taken out.
std::array<int64_t, kMemoryOwners> at_peak_of(const Step& step, Device device) {
  ModelConfig config = tiny_model(300);
  config.hidden_size = 64;
  config.intermediate_size = 96;
  config.head_dim = 16;
  config.qkv_bias = config.mlp_bias = true;
  config.mixers["full"] = {.kind = step.mixer, .window = step.mixer == "sp_kv" ? 7 : 0};
  OptimConfig optim;
  optim.kind = step.optimizer;
  const MemoryReport before = memory_report(device.kind);
  Tensor shared;  // a real device has it from the first product on, for good
  if (device.is_meta()) LH_DISPATCH(device, "test", shared_workspace(device, shared));
  Decoder model(config, step.compute, 1, device);
  const auto optimizer = make_optimizer(optim, model.parameters());
  const BatchTensors batch = BatchTensors::from(
      make_batch({random_document(60, 300, 1), random_document(21, 300, 2)}), device);
  TensorList list;
  for (int i = 0; i < 2; ++i) {  // the second finds everything allocated
    reset_memory_peak(device.kind);
    model.parameters().zero_grad();
    backward(model.loss(batch.tokens, batch.targets, batch.layout, step.recompute).loss_sum);
    Tensor norm = Tensor::empty({1}, DType::kF64, device);
    grad_sum_of_squares(model.parameters(), list, norm);
    optimizer->step(1, 1);
  }
  std::array<int64_t, kMemoryOwners> bytes = memory_report(device.kind).at_peak;
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] -= before.now[i];
  return bytes;
}

/// Most bytes of one self-pruning mixer's forward pass, whose keys and values are wider than its rows.
int64_t peak_of_gates(GateMode mode) {
  ModelConfig config = tiny_model(300);
  config.hidden_size = 32;
  config.num_heads = config.num_kv_heads = 4;
  config.head_dim = 16;
  const MixerConfig self{.kind = "sp_kv", .window = 7};
  ParameterStore store(DType::kBF16, 1, kMetaCudaDevice);
  const auto rope = std::make_shared<const RopeTable>(config, DType::kF32, kMetaCudaDevice);
  const auto mixer = make_mixer({config, self, "m", store, rope});
  SequenceLayout layout = SequenceLayout::packed(std::vector<int64_t>{0, 100}, kMetaCudaDevice);
  GatePhase phase;
  phase.mode = mode;
  layout.set_gates(phase);
  const GradMode off(false);
  const Variable x(Tensor::empty({100, 32}, DType::kBF16, kMetaCudaDevice));
  reset_memory_peak(DeviceKind::kMeta);
  const int64_t before = memory_report(DeviceKind::kMeta).total_now;
  mixer->forward(x, layout);
  return memory_report(DeviceKind::kMeta).total_peak - before;
}

}  // namespace

TEST_CASE("hard gates take memory for copies of open keys, gates that close nothing take none") {
  const int64_t soft = peak_of_gates(GateMode::kSoft), hard = peak_of_gates(GateMode::kHard);
  CHECK(peak_of_gates(GateMode::kAnneal) == soft);
  // Copies of k and v, less what is no longer there when the soft pass has its most.
  CHECK(hard > soft);
  CHECK(hard <= soft + 100 * 4 * (2 * 16 * 2 + 16));
}

TEST_CASE("a step on the meta device charges what one on a CUDA device does") {
  if (gpu::device_count() == 0) {
    MESSAGE("SKIPPED: no CUDA device (" << gpu::unavailable_reason() << ")");
    return;
  }
  constexpr Device kGpu{DeviceKind::kCuda, 0};
  at_peak_of({}, kGpu);  // what a process allocates once and keeps
  for (const Step& step : std::vector<Step>{
           {},
           {.recompute = true},
           {.compute = DType::kBF16},
           {.compute = DType::kBF16, .recompute = true},
           {.optimizer = "muon"},
           {.mixer = "sp_kv"},
           {.mixer = "sp_kv", .compute = DType::kBF16},
           {.mixer = "parallax"},
           {.mixer = "parallax", .compute = DType::kBF16},
           {.mixer = "lla"},
       }) {
    CAPTURE(step.mixer);
    CAPTURE(step.optimizer);
    CAPTURE(std::string(dtype_name(step.compute)));
    CAPTURE(step.recompute);
    const auto real = at_peak_of(step, kGpu), meta = at_peak_of(step, kMetaCudaDevice);
    for (int i = 0; i < kMemoryOwners; ++i) {
      const auto owner = static_cast<MemoryOwner>(i);
      CAPTURE(memory_owner_name(owner));
      const int64_t left_out = real[static_cast<size_t>(i)] - meta[static_cast<size_t>(i)];
      if (owner != MemoryOwner::kData) CHECK(left_out == 0);
      // Work items of attention, by plan and tile size, and lists of parameters.
      else CHECK((left_out >= 0 && left_out < 16384));
    }
  }
}
