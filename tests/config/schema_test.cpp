// The schema is frozen: a recipe that works today works tomorrow. Adding a key adds a line to the
// golden file; a line that changes or goes away breaks somebody's recipe and needs a good reason.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "base/file.h"
#include "base/text.h"
#include "config_support.h"

namespace {

using namespace lh;
using namespace lh::test;

std::string schema_text() {
  std::string text;
  for (const KeyInfo& key : recipe_schema()) {
    text += key.key + ": " + key.type;
    if (!key.default_value.empty()) text += " = " + key.default_value;
    if (!key.allowed.empty()) text += " [" + key.allowed + "]";
    text += "\n";
  }
  return text;
}

TEST_CASE("the schema equals the frozen one") {
  const std::filesystem::path golden = LH_SOURCE_DIR "/tests/golden/config/schema.txt";
  const std::string now = schema_text();
  const std::string frozen = std::filesystem::exists(golden) ? read_file(golden) : "";
  if (now != frozen) {
    const auto proposal = std::filesystem::temp_directory_path() / "longhand_schema.txt";
    std::ofstream(proposal) << now;
    FAIL("the recipe schema changed. If that is meant (new keys only, or a noted break), copy ",
         proposal.string(), " to ", golden.string());
  }
}

TEST_CASE("every key is explained with type and meaning and every unit is a word") {
  for (const KeyInfo& key : recipe_schema()) {
    CAPTURE(key.key);
    CHECK(!key.type.empty());
    CHECK(key.meaning.size() > 8);
    const std::string text = explain_recipe(key.key);
    CHECK(contains(text, key.meaning));
    if (!key.units.empty()) CHECK(contains(text, "in " + key.units));
  }
}

TEST_CASE("explain shows a section with all its keys and refuses unknown ones with a guess") {
  const std::string optim = explain_recipe("optim");
  CHECK(contains(optim, "optim.muon.newton_schulz"));
  CHECK(!contains(optim, "schedule."));
  try {
    explain_recipe("optim.learning_rat");
    FAIL("accepted");
  } catch (const ConfigError& error) {
    CHECK(contains(error.what(), "did you mean 'optim.learning_rate'"));
  }
}

TEST_CASE("every default of a scalar key is accepted when given explicitly") {
  for (const KeyInfo& key : recipe_schema()) {
    if (key.default_value.empty() || contains(key.key, "*")) continue;
    const std::string message =
        errors(small_recipe(), {"model.max_position=2048", key.key + "=" + key.default_value});
    // Keys whose default says "must be given" are refused for that reason alone.
    if (!message.empty()) CHECK_MESSAGE(contains(message, ", got 0"), message);
  }
}

}  // namespace
