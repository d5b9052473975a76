#include "train/evaluate_task.h"

#include <algorithm>
#include <cmath>

#include "backend/elementwise.h"
#include "ops/embedding.h"
#include "train/batch_tensors.h"

namespace lh {
namespace {

struct Score {
  double loss;
  bool right;
};

/// One row of logits against its target.
Score score(std::span<const float> logits, int32_t target) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit - largest));
  const float own = logits[static_cast<size_t>(target)];
  const auto first = std::find(logits.begin(), logits.end(), largest);
  return {std::log(sum) - static_cast<double>(own - largest), first - logits.begin() == target};
}

/// Of the rows that have a target, in order. Logits exist for a few thousand rows at a time.
std::vector<Score> answer_scores(const Decoder& model, const Batch& batch, const GatePhase& gates,
                                 MixerReport* report) {
  BatchTensors tensors = BatchTensors::from(batch, model.device());
  tensors.layout.set_gates(gates);
  tensors.layout.set_report(report);
  const Variable hidden = model.forward(tensors.tokens, tensors.layout);
  std::vector<int32_t> rows;
  for (size_t i = 0; i < batch.targets.size(); ++i)
    if (batch.targets[i] >= 0) rows.push_back(static_cast<int32_t>(i));
  const int64_t vocab = model.config().vocab_size, count = static_cast<int64_t>(rows.size());
  constexpr int64_t kLogits = int64_t{1} << 24;  // at once
  const int64_t chunk = std::max<int64_t>(1, kLogits / vocab);
  std::vector<Score> scores;
  for (int64_t begin = 0; begin < count; begin += chunk) {
    const int64_t size = std::min(chunk, count - begin);
    const std::vector<int32_t> part(rows.begin() + begin, rows.begin() + begin + size);
    const Tensor ids = Tensor::from(part, {size}).to(model.device());
    const Tensor logits = model.logits(embedding(hidden, ids));  // the rows of the answers
    Tensor wide = Tensor::empty({size, vocab}, DType::kF32, model.device());
    LH_DISPATCH(model.device(), "evaluate_task", copy(logits, wide));
    const Tensor host = wide.to(kCpuDevice);
    const auto values = host.span<float>();
    for (int64_t i = 0; i < size; ++i)
      scores.push_back(score(values.subspan(static_cast<size_t>(i * vocab),
                                            static_cast<size_t>(vocab)),
                             batch.targets[static_cast<size_t>(part[static_cast<size_t>(i)])]));
  }
  return scores;
}

}  // namespace

std::string TaskResult::line() const {
  return fmt::format("{}: loss {:.4f}, {:.2f}% of answer tokens right, {:.2f}% of {} examples", kind,
                     loss, 100 * accuracy, 100 * exact, examples);
}

std::optional<TaskResult> evaluate_task(const Decoder& model, const TaskBatches& batches,
                                        int64_t sequences, const std::function<bool()>& stop,
                                        const std::function<void(double)>& progress,
                                        const GatePhase& gates, MixerReport* report) {
  const GradMode off(false);
  const int64_t answers = batches.task().shape().answers;
  double loss = 0;
  int64_t right = 0, exact = 0;
  for (int64_t first = 0; first < batches.sequences(); first += sequences) {
    if (stop && stop()) return std::nullopt;
    const std::vector<Score> scores = answer_scores(
        model, batches.make_batch(first, std::min(sequences, batches.sequences() - first)), gates,
        report);
    for (auto example = scores.begin(); example != scores.end(); example += answers) {
      const int64_t hits = std::count_if(example, example + answers,
                                         [](const Score& one) { return one.right; });
      right += hits;
      exact += hits == answers ? 1 : 0;
    }
    for (const Score& one : scores) loss += one.loss;
    if (progress) progress(static_cast<double>(first) / static_cast<double>(batches.sequences()));
  }
  TaskResult result;
  result.kind = batches.task().config().kind;
  result.targets = batches.valid_targets();
  result.examples = batches.examples();
  result.loss = loss / static_cast<double>(result.targets);
  result.accuracy = static_cast<double>(right) / static_cast<double>(result.targets);
  result.exact = static_cast<double>(exact) / static_cast<double>(result.examples);
  return result;
}

}  // namespace lh
