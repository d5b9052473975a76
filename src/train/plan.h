// What a recipe would need in a job of any size, without a device and without running it: one process makes two
// steps on the meta device among imagined peers, and what it allocates, computes and sends is counted.
#pragma once

#include "config/recipe.h"
#include "runtime/memory.h"
#include "train/plan_traffic.h"

namespace lh {

struct RecipePlan {
  int64_t processes = 1, data = 1, context = 1;
  int64_t parameters = 0;
  int64_t micro_batches = 0;  // of the planned process
  MemoryReport memory;        // of the planned process: what it holds, and at the peak of a step
  double flops = 0;           // arithmetic of a step (Decoder::training_flops), all processes
  std::vector<PlannedTraffic> sent;  // by the planned process in a step
};

/// Plans rank `rank` of `processes`. `device`: kMetaCudaDevice, or kMetaCpuDevice for a process that computes
/// on the CPU with as many threads as this one would. The scratch memory of the backend counts; that of CUDA
/// kernels where this build has them (kWithCuda), that of the host and of cuDNN not. `compute`: f32 or bf16.
/// `vocabulary` is used where the recipe leaves it to the tokenizer. Every sequence is one document, the
/// most work a step can be; where gates go through phases, memory and traffic are those of the phase with the most.
/// ConfigError as in training.
RecipePlan plan_recipe(const Recipe& recipe, int processes, int rank, Device device, DType compute,
                       int64_t vocabulary);

}  // namespace lh
