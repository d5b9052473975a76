#include "train/plan.h"

#include <numeric>

#include "optim/schedule.h"
#include "train/step.h"

namespace lh {
namespace {

Batch full_sequences(int64_t sequences, int64_t tokens) {
  Batch batch;
  const auto rows = static_cast<size_t>(sequences * tokens);
  batch.tokens.assign(rows, 0);
  batch.targets.assign(rows, 0);
  batch.segment_offsets = {0};
  for (int64_t s = 0; s < sequences; ++s) {
    for (int64_t i = 0; i < tokens; ++i) batch.positions.push_back(static_cast<int32_t>(i));
    batch.segment_offsets.push_back((s + 1) * tokens);
  }
  batch.valid_targets = sequences * tokens;
  return batch;
}

CommTraffic minus(const CommTraffic& a, const CommTraffic& b) {
  return {a.all_reduce - b.all_reduce, a.reduce_scatter - b.reduce_scatter,
          a.all_gather - b.all_gather, a.all_to_all - b.all_to_all, a.send - b.send,
          a.broadcast - b.broadcast};
}

}  // namespace

RecipePlan plan_recipe(const Recipe& recipe, int processes, int rank, Device device, DType compute,
                       int64_t vocabulary) {
  const PeerPlace place{.rank = rank, .size = processes, .master = {}, .device = device,
                        .imagined = true};
  const Team team(std::make_unique<Peers>(place, GlooOptions{}), recipe.parallel);
  ModelConfig config = recipe.model;
  if (config.vocab_size == 0) config.vocab_size = vocabulary;
  const MemoryReport before = memory_report(DeviceKind::kMeta);
  Decoder model(config, compute, 0, device);
  const auto optimizer = make_optimizer(recipe.optim, model.parameters(), team.shard_place());
  const int64_t seq = recipe.data.seq_tokens, sequences = recipe.schedule.batch_tokens / seq;
  const SequenceShare share = team.share(sequences, recipe.micro_batch_tokens() / seq);

  RecipePlan plan;
  plan.processes = processes;
  plan.data = team.place().data;
  plan.context = team.place().context;
  plan.parameters = model.parameters().count();
  plan.micro_batches = share.micro_batches();
  CommTraffic world, context;
  for (int step = 0; step < 2; ++step) {  // the second finds everything allocated
    reset_memory_peak(DeviceKind::kMeta);
    world = team.world().traffic();
    context = team.context().traffic();
    train_step(
        {.model = model,
         .optimizer = *optimizer,
         .recipe = recipe,
         .batch = [&](int64_t micro) { return full_sequences(share.size(micro), seq); },
         .micro_batches = share.micro_batches(),
         .valid_targets = sequences * seq,
         .stop = nullptr,
         .team = &team},
        1);
  }
  // Backward is twice the forward (train/step.cpp).
  for (int64_t micro = 0; micro < share.micro_batches(); ++micro)
    plan.flops +=
        3 * static_cast<double>(processes) *
        model.forward_flops(
            team.tensors(full_sequences(share.size(micro), seq), device).layout);
  plan.world = minus(team.world().traffic(), world);
  plan.context_group = minus(team.context().traffic(), context);
  plan.memory = memory_report(DeviceKind::kMeta);
  for (int i = 0; i < kMemoryOwners; ++i) {
    const auto owner = static_cast<size_t>(i);
    plan.memory.now[owner] -= before.now[owner];
    plan.memory.at_peak[owner] -= before.now[owner];
  }
  plan.memory.total_now -= before.total_now;
  plan.memory.total_peak -= before.total_now;
  return plan;
}

}  // namespace lh
