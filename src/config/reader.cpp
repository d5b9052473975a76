#include "config/reader.h"

#include <fmt/format.h>

#include "config/number.h"

namespace lh {

void report_kind(const YamlNode& node, const std::string& key, std::string_view what,
                 Problems& problems) {
  problems.add(node.position, key, fmt::format("expected {}, got {}", what, node.description()));
}

void report_unknown_key(const YamlEntry& entry, const std::string& section,
                        const std::vector<std::string>& known, Problems& problems) {
  for (const std::string& name : known)
    if (name == entry.key) return;
  const std::string where = section.empty() ? "a recipe" : section;
  std::string message = fmt::format("unknown key {} in {}", shown(entry.key), where);
  if (entry.key == "from") {
    message += "; 'from' stands only at the top of a section";
  } else if (entry.key == "<<") {
    message += "; merge keys are not supported, include a part with 'from'";
  } else if (const std::string near = did_you_mean(entry.key, known); !near.empty()) {
    message += near;
  } else {
    message += fmt::format("; expected one of {}", fmt::join(known, ", "));
  }
  problems.add(entry.position, {}, message);
}

void read_value(const YamlNode& node, const std::string& key, int64_t& value, Problems& problems) {
  std::string why;
  if (!node.is_scalar() || node.quoted)
    report_kind(node, key, "an integer", problems);
  else if (!parse_integer(node.text, value, why))
    problems.add(node.position, key, why);
}

void read_value(const YamlNode& node, const std::string& key, double& value, Problems& problems) {
  std::string why;
  if (!node.is_scalar() || node.quoted)
    report_kind(node, key, "a number", problems);
  else if (!parse_real(node.text, value, why))
    problems.add(node.position, key, why);
}

void read_value(const YamlNode& node, const std::string& key, bool& value, Problems& problems) {
  // Words like yes and off mean true or false only to some YAML readers, so none are taken.
  if (!node.is_scalar() || node.quoted || (node.text != "true" && node.text != "false"))
    report_kind(node, key, "true or false", problems);
  else
    value = node.text == "true";
}

void read_value(const YamlNode& node, const std::string& key, std::string& value,
                Problems& problems) {
  if (node.is_scalar())
    value = node.text;
  else
    report_kind(node, key, node.is_null() ? "text ('' for none)" : "text", problems);
}

void collect_origins(const YamlNode& node, const std::string& key, Origins& origins) {
  if (node.is_map()) {
    for (const YamlEntry& entry : node.entries) {
      const std::string path = join_key(key, entry.key);
      const bool leaf = entry.value.is_scalar();
      origins[path] = leaf ? entry.value.position : entry.position;
      collect_origins(entry.value, path, origins);
    }
  } else if (node.is_list()) {
    for (size_t i = 0; i < node.items.size(); ++i) {
      const std::string path = join_key(key, std::to_string(i));
      origins[path] = node.items[i].position;
      collect_origins(node.items[i], path, origins);
    }
  }
}

Position find_origin(const Origins& origins, std::string_view key) {
  for (;;) {
    if (const auto found = origins.find(key); found != origins.end()) return found->second;
    if (key.empty()) return {};
    const size_t dot = key.rfind('.');
    key = dot == std::string_view::npos ? std::string_view() : key.substr(0, dot);
  }
}

}  // namespace lh
