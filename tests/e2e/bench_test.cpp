// `longhand bench` as a user runs it, at toy sizes on the CPU, and where there is one on a CUDA device: every row is
// there, finite and complete; wrong arguments are refused.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "base/file.h"
#include "bench/measure.h"

namespace {

using namespace lh;
namespace fs = std::filesystem;

struct Outcome {
  int code = 0;
  std::string output;
};

class Folder {
 public:
  Folder() : root_(fs::temp_directory_path() / fmt::format("lh_bench_{}", ::getpid())) {
    fs::create_directories(root_);
  }
  ~Folder() { fs::remove_all(root_); }
  std::string path(const std::string& name) const { return (root_ / name).string(); }

  Outcome bench(const std::string& arguments, const std::string& device = "cpu") const {
    const std::string command =
        fmt::format("cd '{}' && OMP_NUM_THREADS=1 '{}' bench --device {} --size toy {} >log 2>&1",
                    root_.string(), LH_BINARY, device, arguments);
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_file(path("log"))};
  }

 private:
  fs::path root_;
};

const std::string kRecipe = " --recipe " LH_SOURCE_DIR "/recipes/smoke/smoke_cpu.yaml";

const std::set<std::string> kAttention = {
    "causal forward", "causal backward", "packed forward", "packed backward", "window forward", "window backward",
    "parallax forward+backward", "sp_kv soft forward+backward", "sp_kv hard forward+backward"};
const std::set<std::string> kDecode = {"attention, one token", "sp_kv keeping 20 %, one token", "parallax, one token"};

TEST_CASE("bench writes a complete row for every case of every group") {
  const Folder folder;
  const Outcome outcome = folder.bench("--json out.json" + kRecipe);
  INFO(outcome.output);
  REQUIRE(outcome.code == 0);
  const auto json = nlohmann::json::parse(read_file(folder.path("out.json")));
  std::map<std::string, std::set<std::string>> names;
  for (const auto& row : json.at("rows")) {
    CAPTURE(row.dump());
    names[row.at("group").get<std::string>()].insert(row.at("name").get<std::string>());
    for (const char* text : {"shape", "dtype", "ratio_to", "device", "date"})
      CHECK(!row.at(text).get<std::string>().empty());
    CHECK(row.at("command").get<std::string>().starts_with("longhand bench --device cpu"));
    const double median = row.at("seconds"), low = row.at("seconds_low"),
                 high = row.at("seconds_high");
    CHECK(median > 0);
    CHECK(low <= median);
    CHECK(median <= high);
    CHECK(row.at("count").get<int>() == 3);
    CHECK(std::isfinite(row.at("ratio").get<double>()));
    CHECK(row.at("ratio").get<double>() > 0);
    CHECK(row.contains("gb_per_s") != row.contains("tflop_per_s"));
    CHECK(row.at("peer_seconds").get<double>() > 0);
    CHECK(!row.contains("target"));  // of a GPU
    const bool step = row.at("group") == "step";
    CHECK(row.contains("tokens_per_s") == step);
    if (step) CHECK(row.at("memory_bytes").get<double>() > 0);
    CHECK(outcome.output.find(row.at("name").get<std::string>()) != std::string::npos);
  }
  CHECK(names["memory"].size() == 23);
  CHECK(names["gemm"].size() == 7);
  CHECK(names["attention"] == kAttention);
  CHECK(names["decode"] == kDecode);
  // How many keys hard gates keep is part of the name: one in ten, as near as this batch allows.
  REQUIRE(names["step"].size() == 3);
  CHECK(names["step"].contains("smoke"));
  CHECK(names["step"].contains("smoke, sp_kv soft"));
  const std::string hard = "smoke, sp_kv hard ";
  const auto found = names["step"].lower_bound(hard);
  REQUIRE(found != names["step"].end());
  REQUIRE(found->starts_with(hard));
  const int kept = std::stoi(found->substr(hard.size()));
  CHECK(kept >= 8);
  CHECK(kept <= 12);
  // Also in bf16, where fresh utilities lie closer together than their numbers can.
  const Outcome bf16 = folder.bench("step --set precision.compute=bf16" + kRecipe);
  INFO(bf16.output);
  REQUIRE(bf16.code == 0);
  const size_t at = bf16.output.find(hard);
  REQUIRE(at != std::string::npos);
  const int share = std::stoi(bf16.output.substr(at + hard.size()));
  CHECK(share >= 8);
  CHECK(share <= 12);
}

TEST_CASE("bench on a CUDA device measures every figure that is promised of one and says which is reached") {
  const Folder folder;
  const Outcome outcome = folder.bench("attention decode step --json out.json" + kRecipe, "cuda");
  // A build without CUDA has no such rows; scripts/test.sh runs this case on the emulated device too.
  if (outcome.code == 2 && outcome.output.find("run.device: cuda was asked for") != std::string::npos) {
    MESSAGE("SKIPPED: " << outcome.output);
    return;
  }
  INFO(outcome.output);
  REQUIRE(outcome.code == 0);
  const auto json = nlohmann::json::parse(read_file(folder.path("out.json")));
  std::map<std::string, std::set<std::string>> names;
  std::map<std::string, double> limits;
  for (const auto& row : json.at("rows")) {
    CAPTURE(row.dump());
    std::string name = row.at("name");
    names[row.at("group").get<std::string>()].insert(name);
    if (!row.contains("target")) continue;
    if (const size_t hard = name.find(" hard "); hard != std::string::npos) name.resize(hard + 5);  // without the share
    const auto& target = row.at("target");
    const bool time = target.at("of") == "time";
    limits[name] = target.at(time ? "at_most" : "at_least");
    if (target.contains("pytorch_way")) continue;  // PyTorch's side measures it
    const double own = row.at("seconds"), peer = row.at("peer_seconds"), value = target.at("value");
    // The same quotient of the same numbers, which passed through decimal text in between.
    CHECK(value == doctest::Approx(time ? own / peer : peer / own));
    const double limit = target.at(time ? "at_most" : "at_least");
    CHECK(target.at("reached").get<bool>() == (time ? value <= limit : value >= limit));
  }
  CHECK(names["attention"] == kAttention);
  CHECK(names["decode"] == kDecode);
  CHECK(limits["parallax forward+backward"] == 2.0);
  CHECK(limits["parallax, one token"] == 1.0);
  CHECK(limits["smoke, sp_kv soft"] == 0.75);
  CHECK(limits["smoke, sp_kv hard"] == 0.95);
}

TEST_CASE("bench runs only the groups that are named") {
  const Folder folder;
  REQUIRE(folder.bench("decode --json out.json").code == 0);
  for (const auto& row : nlohmann::json::parse(read_file(folder.path("out.json"))).at("rows"))
    CHECK(row.at("group") == "decode");
}

TEST_CASE("bench refuses wrong arguments before it measures anything") {
  const Folder folder;
  const Outcome unknown = folder.bench("memory atention");
  CHECK(unknown.code == 2);
  CHECK(unknown.output.find("'atention' (did you mean 'attention'?)") != std::string::npos);
  const Outcome recipe = folder.bench("step --recipe nowhere.yaml");
  CHECK(recipe.code == 2);
  CHECK(recipe.output.find("there is no recipe nowhere.yaml") != std::string::npos);
  const Outcome file = folder.bench("decode --json nowhere/out.json");
  CHECK(file.code == 1);
  CHECK(file.output.find("nowhere") != std::string::npos);
  CHECK(folder.bench("decode --size huge").code == 2);
}

TEST_CASE("bench times are medians with the first and last tenth") {
  const bench::Times odd = bench::summary({5, 1, 3});
  CHECK(odd.median == 3);
  CHECK(odd.count == 3);
  std::vector<double> many;
  for (int i = 20; i >= 0; --i) many.push_back(i);
  const bench::Times times = bench::summary(many);
  CHECK(times.median == 10);
  CHECK(times.low == 2);
  CHECK(times.high == 18);
  CHECK(bench::summary({4, 2}).median == 3);
}

}  // namespace
