// libFuzzer target: recipes. The input is a recipe, and what follows a line "%%" are overrides, one
// per line. It is read, or refused with a ConfigError that names a place; what is read is printed
// and read again, and must be the same.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "config/load.h"

namespace {

void require(bool ok) {
  if (!ok) __builtin_trap();
}

std::vector<std::string> split_lines(std::string_view text) {
  std::vector<std::string> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    lines.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lh;
  std::string_view text(reinterpret_cast<const char*>(data), size);
  std::vector<std::string> sets;
  if (const size_t cut = text.find("\n%%\n"); cut != std::string_view::npos) {
    sets = split_lines(text.substr(cut + 4));
    text = text.substr(0, cut + 1);
  }
  try {
    const Recipe recipe = parse_recipe_text(text, "fuzz.yaml", sets, LH_SOURCE_DIR "/configs");
    const std::string dump = dump_recipe(recipe);
    require(parse_recipe_text(dump, "dump.yaml") == recipe);
  } catch (const ConfigError& error) {
    const std::string_view message = error.what();
    require(message.find("yaml") != std::string_view::npos ||
            message.find("--set") != std::string_view::npos);
  }
  return 0;
}
