#include "bench/report.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/text.h"

namespace lh::bench {
namespace {

std::string today() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d", &utc);
  return text;
}

/// "12.3 us", "4.56 ms", "7.89 s".
std::string time_text(double seconds) {
  if (seconds < 1e-3) return fmt::format("{:.1f} us", seconds * 1e6);
  if (seconds < 1) return fmt::format("{:.2f} ms", seconds * 1e3);
  return fmt::format("{:.2f} s", seconds);
}

std::string rate_text(const Row& row) {
  const double flops = row.flops / row.times.median;
  if (flops >= 1e12) return fmt::format("{:.1f} TFLOP/s", flops * 1e-12);
  if (flops > 0) return fmt::format("{:.1f} GFLOP/s", flops * 1e-9);
  return fmt::format("{:.1f} GB/s", row.bytes / row.times.median * 1e-9);
}

/// "; here 1.85x of <peer>: reached", or who measures it.
std::string outcome_text(const Target& target, const Row& row) {
  if (!target.pytorch_way.empty())
    return fmt::format(" of PyTorch's {}, which scripts/bench_gpu.sh measures", target.pytorch_way);
  const double value = target.value(row.times.median, row.peer_seconds);
  return fmt::format("; here {:.2f}x: {}", value, target.reached(value) ? "reached" : "not reached");
}

nlohmann::ordered_json target_json(const Target& target, const Row& row) {
  const bool time = target.of == Target::Of::kTimeAtMost;
  nlohmann::ordered_json json{{"device", "H200"},
                              {"of", time ? "time" : "speed"},
                              {time ? "at_most" : "at_least", target.bound}};
  if (!target.pytorch_way.empty()) {
    json["pytorch_way"] = target.pytorch_way;
    return json;
  }
  const double value = target.value(row.times.median, row.peer_seconds);
  json["value"] = value;
  json["reached"] = target.reached(value);
  return json;
}

}  // namespace

std::string Target::text() const {
  return of == Of::kTimeAtMost ? fmt::format("time at most {:.2f}x", bound)
                               : fmt::format("speed at least {:.2f}x", bound);
}

Report::Report(std::string device, std::string command)
    : device_(std::move(device)), command_(std::move(command)), date_(today()) {}

void Report::add(Row row) {
  for (const double value : {row.times.median, row.times.low, row.times.high, row.ratio,
                             row.peer_seconds, row.bytes + row.flops})
    LH_CHECK(std::isfinite(value) && value > 0, "[bench] {} {}: measured {}", row.name, row.shape,
             value);
  if (rows_.empty()) fmt::print("{}, {}\n", device_, date_);
  if (rows_.empty() || rows_.back().group != row.group)
    fmt::print("\n{:<30} {:<34} {:>10} {:>7} {:>16} {:>6}  {}\n", row.group, "shape", "time",
               "spread", "rate", "ratio", "to");
  fmt::print("{:<30} {:<34} {:>10} {:>6.0f}% {:>16} {:>6.3f}  {}\n", row.name,
             row.shape + " " + row.dtype, time_text(row.times.median),
             100 * (row.times.high - row.times.low) / row.times.median, rate_text(row), row.ratio,
             row.ratio_to);
  if (row.tokens > 0)
    fmt::print("{:<30} {:.0f} tokens/s, {} at peak\n", "", row.tokens / row.times.median,
               format_bytes(row.memory_bytes));
  if (row.target)
    fmt::print("{:<30} target on an H200: {}{}\n", "", row.target->text(), outcome_text(*row.target, row));
  std::fflush(stdout);
  rows_.push_back(std::move(row));
}

void Report::write_json(const std::filesystem::path& path) const {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const Row& row : rows_) {
    nlohmann::ordered_json line{{"group", row.group},
                                {"name", row.name},
                                {"shape", row.shape},
                                {"dtype", row.dtype},
                                {"seconds", row.times.median},
                                {"seconds_low", row.times.low},
                                {"seconds_high", row.times.high},
                                {"count", row.times.count}};
    if (row.bytes > 0) line["gb_per_s"] = row.bytes / row.times.median * 1e-9;
    if (row.flops > 0) line["tflop_per_s"] = row.flops / row.times.median * 1e-12;
    if (row.tokens > 0) {
      line["tokens_per_s"] = row.tokens / row.times.median;
      line["memory_bytes"] = row.memory_bytes;
    }
    if (!row.model.empty()) line["model"] = row.model;
    if (!row.documents.empty()) line["documents"] = row.documents;
    if (row.window > 0) line["window"] = row.window;
    line["ratio"] = row.ratio;
    line["ratio_to"] = row.ratio_to;
    line["peer_seconds"] = row.peer_seconds;
    if (row.target) line["target"] = target_json(*row.target, row);
    line["device"] = device_;
    line["date"] = date_;
    line["command"] = command_;
    rows.push_back(std::move(line));
  }
  write_file_atomically(path, nlohmann::ordered_json{{"rows", std::move(rows)}}.dump(1) + "\n");
}

}  // namespace lh::bench
