// One record per logged step: a line of JSON in metrics.jsonl and a line on the console.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

#include "train/evaluate.h"

namespace lh {

struct StepMetrics {
  int64_t step = 0;   // completed steps
  int64_t steps = 0;  // of the whole run
  int64_t tokens = 0;  // trained on so far
  double loss = 0;    // nats per token over the step's global batch
  std::optional<double> density_loss = {};  // what gates' regulariser adds to it, where there is one
  double grad_norm = 0;
  double learning_rate = 0;
  double tokens_per_second = 0;
  double peak_share = 0;  // arithmetic done / what this machine's matrix products reach; 0: unknown
  double data_wait_seconds = 0;
  int64_t memory_bytes = 0;  // peak of all tensors
  double eta_seconds = 0;

  std::string console_line() const;
};

/// Appends to a JSON-lines file. A resumed run first drops records of steps it will repeat.
class MetricsFile {
 public:
  /// IoError when the file can't be written. Keeps records of steps <= keep_through.
  MetricsFile(std::filesystem::path path, int64_t keep_through);
  void write(const StepMetrics& metrics);
  void write(int64_t step, const EvalResult& result);

 private:
  void line(const std::string& text);
  std::filesystem::path path_;
  std::ofstream file_;
};

}  // namespace lh
