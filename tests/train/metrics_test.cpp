#include "train/metrics.h"

#include <doctest/doctest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/file.h"
#include "support/folder.h"

namespace {

using namespace lh;
using namespace lh::test;

std::vector<nlohmann::json> records(const std::filesystem::path& path) {
  std::vector<nlohmann::json> all;
  std::istringstream lines(read_file(path));
  for (std::string line; std::getline(lines, line);) all.push_back(nlohmann::json::parse(line));
  return all;
}

StepMetrics metrics(int64_t step) {
  StepMetrics m;
  m.step = step;
  m.steps = 10;
  m.tokens = step * 100;
  m.loss = 2.5;
  m.grad_norm = 0.5;
  m.learning_rate = 1e-3;
  m.tokens_per_second = 1234;
  m.peak_share = 0.5;
  m.memory_bytes = 1 << 20;
  m.eta_seconds = 60;
  return m;
}

TEST_CASE("every line is JSON with the promised keys") {
  const Folder folder;
  {
    MetricsFile file(folder / "m.jsonl", 0);
    file.write(metrics(1));
    EvalResult eval;
    eval.loss = 2;
    eval.targets = 50;
    eval.by_position = {{1, 2, 2.5, 10}};
    eval.mixers.means("kv_density", "model.layers.1.self_attn", 2) = {{3, 4}, {1, 4}};
    eval.mixers.root_mean_square("probe_norm", "model.layers.10.self_attn") = {36, 4, true};
    eval.mixers.root_mean_square("probe_norm", "model.layers.9.self_attn") = {4, 4, true};
    eval.mixers.mean("unseen", "model.layers.9.self_attn");
    file.write(1, eval);
  }
  const auto lines = records(folder / "m.jsonl");
  REQUIRE(lines.size() == 2);
  for (const char* key : {"step", "tokens", "loss", "grad_norm", "learning_rate",
                          "tokens_per_second", "peak_share", "data_wait_seconds", "memory_bytes"})
    CHECK_MESSAGE(lines[0].contains(key), key, " in ", lines[0].dump());
  CHECK(lines[0]["loss"] == 2.5);
  CHECK(lines[1]["step"] == 1);
  CHECK_MESSAGE(lines[1].dump().find("bits_per_byte") != std::string::npos, lines[1].dump());
  CHECK(lines[1].dump().find("by_position") != std::string::npos);
  CHECK(lines[1]["kv_density"] == 0.5);
  CHECK(lines[1]["kv_density_by_head"]["model.layers.1.self_attn"][1] == 0.25);
  CHECK(lines[1]["probe_norm"] == doctest::Approx(std::sqrt(5)));
  CHECK(lines[1]["probe_norm_by_layer"]["model.layers.10.self_attn"] == 3);
  CHECK(lines[1]["probe_norm_by_layer"]["model.layers.9.self_attn"] == 1);
  CHECK(lines[1].dump().find("unseen") == std::string::npos);
}

TEST_CASE("a resumed run drops the records it will repeat and a cut line") {
  const Folder folder;
  {
    MetricsFile file(folder / "m.jsonl", 0);
    for (int64_t step = 1; step <= 6; ++step) file.write(metrics(step));
  }
  std::ofstream(folder / "m.jsonl", std::ios::app) << "{\"step\": 7, \"lo";
  {
    MetricsFile file(folder / "m.jsonl", 4);
    file.write(metrics(5));
  }
  const auto lines = records(folder / "m.jsonl");
  REQUIRE(lines.size() == 5);
  for (size_t i = 0; i < 5; ++i) CHECK(lines[i]["step"] == i + 1);
}

TEST_CASE("an unwritable place is an error that names it") {
  const Folder folder;
  put(folder / "file", "x");
  CHECK(contains(error_of<IoError>([&] { MetricsFile(folder / "file/m.jsonl", 0); }), "m.jsonl"));
}

TEST_CASE("the console line shows what a person watches") {
  const std::string line = metrics(3).console_line();
  for (const char* part : {"3/10", "2.5", "tok/s", "50%", "MiB"})
    CHECK_MESSAGE(contains(line, part), line);
}

}  // namespace
