// --set and from: what wins, and where their errors point.
#include <doctest/doctest.h>

#include <cstdlib>
#include <fstream>

#include "config_support.h"

namespace {

using namespace lh;
using namespace lh::test;

TEST_CASE("overrides of every type take effect") {
  const Recipe r =
      parse(small_recipe(), {"optim.learning_rate=2e-3", "data.shuffle=false", "run.name=a b: {c}",
                             "schedule.steps=1e2", "data.valid=[x.h5, y.h5]",
                             "optim.groups=[{pattern: '*.bias', weight_decay: 0}]",
                             "model.mixers.attn.output_gate=true", "eval.prompt="});
  CHECK(r.optim.learning_rate == 2e-3);
  CHECK(!r.data.shuffle);
  CHECK(r.run.name == "a b: {c}");
  CHECK(r.schedule.steps == 100);
  CHECK(r.data.valid == std::vector<std::string>{"x.h5", "y.h5"});
  REQUIRE(r.optim.groups.size() == 1);
  CHECK(r.optim.groups[0].weight_decay == 0.0);
  CHECK(!r.optim.groups[0].freeze.has_value());
  CHECK(r.model.mixers.at("attn").output_gate);
  CHECK(r.eval.prompt.empty());
}

TEST_CASE("the last override of a key wins and list items are reached by index") {
  const Recipe r = parse(small_recipe(), {"run.seed=2", "run.seed=3", "data.train.0.path=b.h5"});
  CHECK(r.run.seed == 3);
  CHECK(r.data.train[0].path == "b.h5");
}

TEST_CASE("wrong overrides are named as they were typed") {
  const auto error = [](const std::string& set) { return errors(small_recipe(), {set}); };
  CHECK(contains(error("nope"), "--set nope: expected section.key=value"));
  CHECK(contains(error("=3"), "expected section.key=value"));
  CHECK(contains(error("a..b=3"), "expected section.key=value"));
  CHECK(contains(error("optim.learning_rat=1"), "did you mean 'learning_rate'"));
  CHECK(contains(error("optim.learning_rate=fast"),
                 "--set optim.learning_rate=fast: optim.learning_rate: expected a number"));
  CHECK(contains(error("data.train.1.path=x"), "list of 1"));
  CHECK(contains(error("run.seed.x=1"), "run.seed"));
  CHECK(contains(error("data.valid=[a"), "data.valid"));
}

/// A folder of parts.
struct Folder {
  Folder() {
    path = std::filesystem::temp_directory_path() / ("lh_parts_" + std::to_string(::getpid()));
    std::filesystem::create_directories(path / "configs/model");
  }
  ~Folder() { std::filesystem::remove_all(path); }
  void put(const std::string& name, const std::string& text) const {
    std::ofstream(path / name) << text;
  }
  std::string load_error(const std::vector<std::string>& sets = {}) const {
    try {
      load_recipe(path / "r.yaml", sets);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "";
  }
  std::filesystem::path path;
};

TEST_CASE("a part gives keys that the recipe and overrides win over") {
  const Folder folder;
  folder.put("configs/model/tiny.yaml",
             "hidden_size: 32\nintermediate_size: 64\nnum_layers: 2\nnum_heads: 2\n"
             "max_position: 512\nrope_scaling: {type: linear, factor: 2}\n");
  folder.put("r.yaml",
             "model:\n  from: model/tiny.yaml\n  num_layers: 4\n"
             "  rope_scaling: {factor: 4}\n" +
                 std::string(kData) + kSchedule);
  const Recipe r =
      load_recipe(folder.path / "r.yaml", std::vector<std::string>{"model.hidden_size=48"});
  CHECK(r.model.hidden_size == 48);
  CHECK(r.model.num_layers == 4);
  CHECK(r.model.num_heads == 2);
  CHECK(r.model.rope_scaling.type == "linear");
  CHECK(r.model.rope_scaling.factor == 4);
}

TEST_CASE("errors inside a part point into the part") {
  const Folder folder;
  folder.put("configs/model/tiny.yaml",
             "hidden_size: 32\nintermediate_size: 64\nnum_layers: 2\nnum_head: 2\n");
  folder.put("r.yaml", "model: {from: model/tiny.yaml}\n" + std::string(kData) + kSchedule);
  const std::string message = folder.load_error();
  CHECK_MESSAGE(contains(message, "tiny.yaml:4:1: unknown key 'num_head' in model"), message);
}

TEST_CASE("missing and nested parts are refused with the nearest name") {
  const Folder folder;
  folder.put("configs/model/tiny.yaml", "from: model/other.yaml\n");
  folder.put("r.yaml", "model: {from: model/tiny.yaml}\n" + std::string(kData) + kSchedule);
  CHECK(contains(folder.load_error(), "can't include another part"));
  folder.put("r.yaml", "model: {from: model/tony.yaml}\n" + std::string(kData) + kSchedule);
  const std::string message = folder.load_error();
  CHECK_MESSAGE(contains(message, "there is no file"), message);
  CHECK_MESSAGE(contains(message, "did you mean 'model/tiny.yaml'"), message);
  folder.put("r.yaml", "model: {from: [a]}\n" + std::string(kData) + kSchedule);
  CHECK(contains(folder.load_error(), "expected the path of a part"));
}

}  // namespace
