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

}  // namespace

Report::Report(std::string device, std::string command)
    : device_(std::move(device)), command_(std::move(command)), date_(today()) {}

void Report::add(Row row) {
  for (const double value : {row.times.median, row.times.low, row.times.high, row.ratio,
                             row.bytes + row.flops})
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
    line["device"] = device_;
    line["date"] = date_;
    line["command"] = command_;
    rows.push_back(std::move(line));
  }
  write_file_atomically(path, nlohmann::ordered_json{{"rows", std::move(rows)}}.dump(1) + "\n");
}

}  // namespace lh::bench
