#include "train/plan.h"

#include <numeric>

#include "backend/matmul.h"
#include "optim/schedule.h"
#include "train/gate_schedule.h"
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

/// What this process has sent, in all groups.
LabelTraffic traffic_of(const Team& team) {
  LabelTraffic all;
  for (const Communicator* group : {&team.world(), &team.context(), team.gradients()})
    if (group != nullptr)
      for (const auto& [key, bytes] : group->traffic_by_label()) all[key] += bytes;
  return all;
}

int64_t total(const LabelTraffic& sent) {
  return std::accumulate(sent.begin(), sent.end(), int64_t{0},
                         [](int64_t sum, const auto& row) { return sum + row.second; });
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
  Tensor shared;
  LH_DISPATCH(device, "plan", shared_workspace(device, shared));
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
  LabelTraffic most_sent;
  for (const GatePhase& gates : gate_phases(recipe)) {
    LabelTraffic sent;
    for (int step = 0; step < 2; ++step) {  // the second finds everything allocated
      reset_memory_peak(DeviceKind::kMeta);
      sent = traffic_of(team);
      train_step(
          {.model = model,
           .optimizer = *optimizer,
           .recipe = recipe,
           .batch = [&](int64_t micro) { return full_sequences(share.size(micro), seq); },
           .micro_batches = share.micro_batches(),
           .valid_targets = sequences * seq,
           .stop = nullptr,
           .gates = gates,
           .document_tokens = sequences * seq,
           .team = &team},
          1);
    }
    const MemoryReport memory = memory_report(DeviceKind::kMeta);
    if (memory.total_peak > plan.memory.total_peak) plan.memory = memory;
    LabelTraffic of_step = traffic_of(team);
    for (auto& [key, bytes] : of_step) bytes -= sent[key];
    if (total(of_step) >= total(most_sent)) most_sent = std::move(of_step);
  }
  for (int i = 0; i < kMemoryOwners; ++i) {
    const auto owner = static_cast<size_t>(i);
    plan.memory.now[owner] -= before.now[owner];
    plan.memory.at_peak[owner] -= before.now[owner];
  }
  plan.memory.total_now -= before.total_now;
  plan.memory.total_peak -= before.total_now;
  plan.sent = planned_traffic(most_sent, config);
  const BatchTensors sequence = BatchTensors::from(full_sequences(1, seq), device);  // they are alike
  plan.flops = static_cast<double>(sequences) * model.training_flops(sequence.layout);
  return plan;
}

}  // namespace lh
