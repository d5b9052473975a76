#include "config/overrides.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "config/number.h"
#include "config/source_text.h"

namespace lh {
namespace {

/// Gives every node below `node` the override as its place: "--set a.b=c" needs no column.
void place(YamlNode& node, const Position& position) {
  node.position = position;
  for (YamlNode& item : node.items) place(item, position);
  for (YamlEntry& entry : node.entries) {
    entry.position = position;
    place(entry.value, position);
  }
}

YamlNode parse_value(const std::string& raw, const Position& position, Problems& problems) {
  const std::string text = clean_config_text(raw, *position.source);
  YamlNode value;
  if (!text.empty() && std::string_view("[{\"'").find(text.front()) != std::string_view::npos) {
    value = parse_yaml(text, *position.source, problems);
  } else if (text != "null" && text != "~") {
    // Taken literally, so that prompts and paths need no quoting for YAML's sake.
    value.kind = YamlNode::Kind::kScalar;
    value.text = text;
    value.quoted = text.empty();
  }
  place(value, position);
  return value;
}

std::vector<std::string> split_key(const std::string& key) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= key.size();) {
    const size_t dot = std::min(key.find('.', begin), key.size());
    parts.push_back(key.substr(begin, dot - begin));
    begin = dot + 1;
  }
  return parts;
}

}  // namespace

std::vector<Override> parse_overrides(std::span<const std::string> sets, Problems& problems) {
  std::vector<Override> overrides;
  for (const std::string& set : sets) {
    const std::string name = "--set " + (set.size() <= 80 ? set : set.substr(0, 77) + "...");
    const Position position{std::make_shared<const std::string>(name), 0, 0};
    const size_t equals = set.find('=');
    if (equals == std::string::npos || equals == 0) {
      problems.add(position, "", "expected section.key=value");
      continue;
    }
    const std::string key = set.substr(0, equals);
    const std::vector<std::string> parts = split_key(key);
    if (std::find(parts.begin(), parts.end(), "") != parts.end() || parts.size() > kMaxYamlDepth) {
      problems.add(position, "", fmt::format("expected section.key=value, got the key {}",
                                             shown(key)));
      continue;
    }
    try {
      overrides.push_back({key, parse_value(set.substr(equals + 1), position, problems)});
    } catch (const ConfigError& error) {
      problems.add(position, key, error.what());
    }
  }
  return overrides;
}

bool chooses_part(const Override& override_) {
  const size_t dot = override_.key.find('.');
  return dot == std::string::npos || override_.key.substr(dot) == ".from";
}

void apply_override(YamlNode& root, const Override& override_, Problems& problems) {
  const Position& position = override_.value.position;
  const auto refuse = [&](std::string_view message) {
    problems.add(position, override_.key, message);
  };
  YamlNode* at = &root;
  std::string walked;
  for (const std::string& part : split_key(override_.key)) {
    if (at->is_list()) {
      int64_t index = 0;
      std::string why;
      if (!parse_integer(part, index, why) || index < 0 ||
          index >= static_cast<int64_t>(at->items.size()))
        return refuse(fmt::format("{} is a list of {}: expected an index below that, got {}",
                                  walked, at->items.size(), shown(part)));
      at = &at->items[static_cast<size_t>(index)];
    } else {
      if (at->is_scalar())
        return refuse(fmt::format("{} is the value {}, no section", walked, at->description()));
      if (at->is_null()) at->kind = YamlNode::Kind::kMap;
      YamlEntry* entry = at->find(part);
      if (entry == nullptr) {
        at->entries.push_back({part, position, {}});
        entry = &at->entries.back();
        entry->value.position = position;
      }
      entry->position = position;
      at = &entry->value;
    }
    walked = join_key(walked, part);
  }
  *at = override_.value;
}

}  // namespace lh
