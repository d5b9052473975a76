#include "train/evaluate.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <numbers>

#include "base/timer.h"
#include "train/batch_tensors.h"
#include "train/evaluate_task.h"
#include "train/team.h"

namespace lh {

namespace {

/// Every process has opened the same numbers, also one that saw no batch.
void sum_over_team(MixerReport& report, const Team& team) {
  const std::vector<double*> sums = report.sums();
  if (sums.empty()) return;
  Tensor numbers = Tensor::empty({static_cast<int64_t>(sums.size())}, DType::kF64);
  double* at = numbers.data<double>();
  for (size_t i = 0; i < sums.size(); ++i) at[i] = *sums[i];
  team.sum(numbers, "mixer report");
  for (size_t i = 0; i < sums.size(); ++i) *sums[i] = at[i];
}

}  // namespace

double EvalResult::perplexity() const {
  return std::exp(loss);
}

EvalResult evaluate(const Decoder& model, const EvaluationBatches& batches, int64_t sequences,
                    const std::function<bool()>& stop,
                    const std::function<void(double)>& progress, const Team* team,
                    const GatePhase& gates) {
  const bool shared = team != nullptr && !team->alone();
  const Timer timer;
  const GradMode off(false);
  constexpr int kBuckets = 48;
  std::array<double, kBuckets> sums{};
  std::array<int64_t, kBuckets> counts{};
  double total = 0, bytes = 0;
  EvalResult result;
  model.describe(result.mixers);
  int64_t part = 0;
  for (int64_t first = 0; first < batches.sequences(); first += sequences, ++part) {
    const bool told = stop && stop();
    // A team asks its members once in a round of all data groups.
    const bool round = !shared || part % team->place().data == 0;
    if (round && (shared ? team->any(told, "stop signal") : told)) {
      result.stopped = true;
      break;
    }
    if (shared && part % team->place().data != team->place().data_rank) continue;
    const Batch batch =
        batches.make_batch(first, std::min(sequences, batches.sequences() - first));
    BatchTensors tensors = shared ? team->tensors(batch, model.device())
                                  : BatchTensors::from(batch, model.device());
    tensors.layout.set_gates(gates);
    tensors.layout.set_report(&result.mixers);
    const Batch mine = shared ? team->rows(batch) : Batch();
    const Batch& rows = shared ? mine : batch;
    const Tensor losses =
        model.loss(tensors.tokens, tensors.targets, tensors.layout).losses.to(kCpuDevice);
    const auto values = losses.span<float>();
    for (size_t i = 0; i < values.size(); ++i) {
      if (rows.targets[i] < 0) continue;
      // Position p has p + 1 tokens of context; bucket b holds contexts of [2^b, 2^(b+1)).
      const int bucket = std::bit_width(static_cast<uint32_t>(rows.positions[i]) + 1u) - 1;
      sums[static_cast<size_t>(bucket)] += values[i];
      ++counts[static_cast<size_t>(bucket)];
      total += values[i];
      ++result.targets;
    }
    // Of a batch that a context group shares, one process counts the bytes.
    if (!shared || team->place().context_rank == 0) bytes += batch.target_bytes;
    if (progress) progress(static_cast<double>(first) / static_cast<double>(batches.sequences()));
  }
  if (shared) {
    Tensor numbers = Tensor::empty({2 * kBuckets + 3}, DType::kF64);
    double* at = numbers.data<double>();
    std::copy(sums.begin(), sums.end(), at);
    std::copy(counts.begin(), counts.end(), at + kBuckets);
    at[2 * kBuckets] = total;
    at[2 * kBuckets + 1] = bytes;
    at[2 * kBuckets + 2] = static_cast<double>(result.targets);
    team->sum(numbers, "evaluation");
    std::copy_n(at, kBuckets, sums.begin());
    for (size_t b = 0; b < kBuckets; ++b) counts[b] = std::llround(at[kBuckets + b]);
    total = at[2 * kBuckets];
    bytes = at[2 * kBuckets + 1];
    result.targets = std::llround(at[2 * kBuckets + 2]);
    sum_over_team(result.mixers, *team);
  }
  result.seconds = timer.seconds();
  if (result.targets == 0) {
    if (result.stopped) return result;
    fail("evaluation saw no token with a target: the data is empty");
  }
  result.loss = total / static_cast<double>(result.targets);
  // Exact when everything was seen; a stopped evaluation knows the bytes of what it saw.
  result.text_bytes = result.targets == batches.valid_targets() ? batches.text_bytes()
                                                                : std::llround(bytes);
  result.bits_per_byte =
      total / std::numbers::ln2 / static_cast<double>(std::max<int64_t>(result.text_bytes, 1));
  for (int b = 0; b < kBuckets; ++b)
    if (counts[static_cast<size_t>(b)] > 0)
      result.by_position.push_back({int64_t{1} << b, int64_t{2} << b,
                                    sums[static_cast<size_t>(b)] /
                                        static_cast<double>(counts[static_cast<size_t>(b)]),
                                    counts[static_cast<size_t>(b)]});
  return result;
}

EvalResult evaluate(const Decoder& model, const ValidData& data, int64_t sequences,
                    const std::function<bool()>& stop,
                    const std::function<void(double)>& progress, const Team* team,
                    const GatePhase& gates) {
  const Timer timer;
  const bool shared = team != nullptr && !team->alone();
  EvalResult result;
  if (data.text) result = evaluate(model, *data.text, sequences, stop, progress, team, gates);
  double loss = 0;
  int64_t targets = 0;
  MixerReport* report = data.text ? nullptr : &result.mixers;
  if (report != nullptr) model.describe(*report);
  for (const TaskBatches& batches : data.tasks) {
    if (result.stopped) break;
    // Small, so every process of a team makes all of it; a signal waits until then.
    const auto task =
        evaluate_task(model, batches, sequences, shared ? std::function<bool()>() : stop, progress,
                      gates, report);
    if (!task) {
      result.stopped = true;
      break;
    }
    loss += task->loss * static_cast<double>(task->targets);
    targets += task->targets;
    result.tasks.push_back(*task);
  }
  if (!data.text && targets > 0) {
    result.targets = targets;
    result.loss = loss / static_cast<double>(targets);
  }
  result.seconds = timer.seconds();
  const bool learned = model.config().has_learned_gates();
  const bool own = gates.mode == GateMode::kHard && !gates.threshold && gates.control == nullptr;
  if (!learned || !own || result.stopped) return result;
  GatePhase soft = gates;
  soft.mode = GateMode::kSoft;
  const EvalResult again = evaluate(model, data, sequences, stop, progress, team, soft);
  if (again.stopped) result.stopped = true;
  else result.soft_loss = again.loss;
  return result;
}

}  // namespace lh
