#include "train/metrics.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/text.h"

namespace lh {

std::string StepMetrics::console_line() const {
  std::string line =
      fmt::format("step {}/{}  loss {:.4f}  grad {:.3f}  lr {:.2e}  {} tok/s", step, steps, loss,
                  grad_norm, learning_rate, format_count(tokens_per_second));
  if (density_loss) line += fmt::format("  density loss {:.4f}", *density_loss);
  if (peak_share > 0) line += fmt::format("  {:.0f}% of peak", 100 * peak_share);
  return line + fmt::format("  {}  left {}", format_bytes(static_cast<double>(memory_bytes)),
                            format_duration(eta_seconds));
}

MetricsFile::MetricsFile(std::filesystem::path path, int64_t keep_through)
    : path_(std::move(path)) {
  std::error_code error;
  std::filesystem::create_directories(path_.parent_path(), error);
  if (error) fail<IoError>("cannot create the folder of {}: {}", path_.string(), error.message());
  std::string kept;
  if (keep_through > 0 && std::filesystem::exists(path_)) {
    const std::string earlier = read_file(path_);
    for (size_t begin = 0; begin < earlier.size();) {
      const size_t end = earlier.find('\n', begin);
      if (end == std::string::npos) break;  // a line cut by a crash
      const std::string text = earlier.substr(begin, end - begin);
      const auto record = nlohmann::json::parse(text, nullptr, false);
      if (record.is_object() && record.value("step", int64_t{0}) <= keep_through)
        kept += text + "\n";
      begin = end + 1;
    }
  }
  write_file_atomically(path_, kept);
  file_.open(path_, std::ios::app);
  if (!file_) fail<IoError>("cannot append to {}", path_.string());
}

void MetricsFile::line(const std::string& text) {
  file_ << text << '\n' << std::flush;
  if (!file_) fail<IoError>("cannot write {}: is the disk full?", path_.string());
}

void MetricsFile::write(const StepMetrics& m) {
  nlohmann::ordered_json record{{"kind", "train"},
                                {"step", m.step},
                                {"tokens", m.tokens},
                                {"loss", m.loss},
                                {"grad_norm", m.grad_norm},
                                {"learning_rate", m.learning_rate},
                                {"tokens_per_second", m.tokens_per_second},
                                {"peak_share", m.peak_share},
                                {"data_wait_seconds", m.data_wait_seconds},
                                {"memory_bytes", m.memory_bytes}};
  if (m.density_loss) record["density_loss"] = *m.density_loss;
  line(record.dump());
}

void MetricsFile::write(int64_t step, const EvalResult& result) {
  nlohmann::ordered_json buckets = nlohmann::ordered_json::array();
  for (const auto& bucket : result.by_position)
    buckets.push_back({{"context", bucket.begin}, {"loss", bucket.loss}});
  nlohmann::ordered_json record{{"kind", "eval"},
                                {"step", step},
                                {"loss", result.loss},
                                {"perplexity", result.perplexity()},
                                {"bits_per_byte", result.bits_per_byte},
                                {"targets", result.targets},
                                {"by_position", buckets}};
  if (result.soft_loss) record["soft_loss"] = *result.soft_loss;
  for (const auto& [name, figure] : result.mixers.figures()) {
    if (!figure.seen()) continue;
    record[name] = figure.total().value();
    auto& parts = record[name + (figure.by_head ? "_by_head" : "_by_layer")];
    for (const auto& [mixer, means] : figure.mixers) {
      if (!figure.by_head) parts[mixer] = means.front().value();
      else
        for (const ReportedMean& mean : means) parts[mixer].push_back(mean.value());
    }
  }
  for (const TaskResult& task : result.tasks)
    record["tasks"].push_back({{"task", task.kind},
                               {"loss", task.loss},
                               {"accuracy", task.accuracy},
                               {"exact", task.exact},
                               {"targets", task.targets},
                               {"examples", task.examples}});
  line(record.dump());
}

}  // namespace lh
