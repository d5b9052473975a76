// What a benchmark found: a table while it runs, and JSON. Every row says what was measured, where,
// when, by which command, and its ratio to something measured in the same run.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "bench/measure.h"

namespace lh::bench {

/// What we promise of a row on an H200, in its own direction: its time by the peer's is at most `bound`, or its
/// speed by the peer's at least that.
struct Target {
  enum class Of : uint8_t { kTimeAtMost, kSpeedAtLeast } of = Of::kTimeAtMost;
  double bound = 0;
  /// "": what the row's ratio is to, measured in the same run; else the way of PyTorch that is the peer, which
  /// scripts/bench_pytorch_rows.py measures.
  std::string pytorch_way{};

  /// Time by time or speed by speed, whichever is bound.
  double value(double seconds, double peer_seconds) const {
    return of == Of::kTimeAtMost ? seconds / peer_seconds : peer_seconds / seconds;
  }
  bool reached(double value) const { return of == Of::kTimeAtMost ? value <= bound : value >= bound; }
  std::string text() const;  // "time at most 2.00x"
};

struct Row {
  std::string group, name, shape, dtype;
  Times times{};
  // What must move through memory: inputs read once, outputs written once. 0: not counted.
  double bytes = 0;
  double flops = 0;  // 0: not counted
  double ratio = 0;  // of this row's rate (bytes, flops) to the peer's
  std::string ratio_to{};
  double peer_seconds = 0;  // of what the ratio is to, whatever work that does
  std::optional<Target> target{};
  // Of a training step only; 0 elsewhere.
  double tokens = 0;
  double memory_bytes = 0;  // peak of all tensors
  // What another program needs to do the same work, beside the shape; in the JSON only.
  std::map<std::string, int64_t> model{};  // of a training step
  std::vector<int64_t> documents{};        // lengths, of packed attention
  int64_t window = 0;                      // of windowed attention
};

class Report {
 public:
  /// `device` and `command` as they appear in every row.
  Report(std::string device, std::string command);

  /// Prints the row. Throws Error when a figure is not finite or not positive.
  void add(Row row);
  const std::vector<Row>& rows() const { return rows_; }

  /// {"rows": [...]}; IoError when the file can't be written.
  void write_json(const std::filesystem::path& path) const;

 private:
  std::string device_, command_, date_;
  std::vector<Row> rows_;
};

}  // namespace lh::bench
