// `longhand bench` as a user runs it, at toy sizes on the CPU: every row is there, finite and complete;
// wrong arguments are refused.
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

  Outcome bench(const std::string& arguments) const {
    const std::string command =
        fmt::format("cd '{}' && OMP_NUM_THREADS=1 '{}' bench --device cpu --size toy {} >log 2>&1",
                    root_.string(), LH_BINARY, arguments);
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_file(path("log"))};
  }

 private:
  fs::path root_;
};

const std::string kRecipe = " --recipe " LH_SOURCE_DIR "/recipes/smoke/smoke_cpu.yaml";

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
    const bool step = row.at("group") == "step";
    CHECK(row.contains("tokens_per_s") == step);
    if (step) CHECK(row.at("memory_bytes").get<double>() > 0);
    CHECK(outcome.output.find(row.at("name").get<std::string>()) != std::string::npos);
  }
  CHECK(names["memory"].size() == 23);
  CHECK(names["gemm"].size() == 7);
  CHECK(names["attention"].size() == 6);
  CHECK(names["decode"].size() == 2);
  CHECK(names["step"] == std::set<std::string>{"smoke"});
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
