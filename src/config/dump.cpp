// Recipes as YAML text, and the schema explained: two more visitors over the same field lists.
#include <fmt/format.h>

#include "base/error.h"
#include "base/text.h"
#include "config/load.h"
#include "config/number.h"
#include "config/rules.h"
#include "config/visit_traits.h"

namespace lh {
namespace {

/// Text as a YAML scalar; quoted wherever plain text could be read as something else.
std::string scalar(const std::string& text) {
  double number;
  std::string why;
  const bool plain =
      !text.empty() && text.size() < 200 && !parse_real(text, number, why) && text != "true" &&
      text != "false" && text != "null" && text.front() != '-' && text.front() != '.' &&
      text.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                             "_-./") == std::string::npos;
  if (plain) return text;
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted += std::string{'\\', c};
    else if (c == '\n') quoted += "\\n";
    else if (c == '\t') quoted += "\\t";
    else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      quoted += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    else quoted += c;
  }
  return quoted + "\"";
}
std::string scalar(int64_t value) {
  return fmt::format("{}", value);
}
std::string scalar(double value) {
  return format_real(value);
}
std::string scalar(bool value) {
  return value ? "true" : "false";
}

class Dumper {
 public:
  explicit Dumper(int indent) : indent_(static_cast<size_t>(indent), ' ') {}
  std::string text;

  template <typename T>
  void field(const char* name, const T& value, const Doc&, const Rule&) {
    text += fmt::format("{}{}:{}\n", indent_, name, block(value));
  }

 private:
  template <typename T>
  std::string nested(const T& value, int deeper) const {
    Dumper inner(static_cast<int>(indent_.size()) + deeper);
    T::visit(inner, value);
    inner.text.pop_back();  // the last newline
    return inner.text;
  }

  /// What follows "name:".
  template <typename T>
  std::string block(const T& value) const {
    if constexpr (kIsOptional<T>) {
      return value ? block(*value) : " null";
    } else if constexpr (kIsList<T>) {
      if (value.empty()) return " []";
      std::string lines;
      for (const auto& item : value) {
        using Item = std::decay_t<decltype(item)>;
        if constexpr (kIsSection<Item>) {
          std::string item_text = nested(item, 4);
          item_text[indent_.size() + 2] = '-';  // the first key's indentation holds the dash
          lines += "\n" + item_text;
        } else {
          lines += fmt::format("{}{}", lines.empty() ? "" : ", ", scalar(item));
        }
      }
      return lines.front() == '\n' ? lines : " [" + lines + "]";
    } else if constexpr (kIsNamed<T>) {
      if (value.empty()) return " {}";
      std::string lines;
      for (const auto& [name, entry] : value)
        lines += fmt::format("\n{}  {}:\n{}", indent_, scalar(name), nested(entry, 4));
      return lines;
    } else if constexpr (kIsSection<T>) {
      return fmt::format("\n{}", nested(value, 2));
    } else {
      return fmt::format(" {}", scalar(value));
    }
  }

  std::string indent_;
};

template <typename T>
const char* type_name() {
  if constexpr (kIsOptional<T>) return type_name<typename T::value_type>();
  else if constexpr (std::is_same_v<T, int64_t>) return "integer";
  else if constexpr (std::is_same_v<T, double>) return "number";
  else if constexpr (std::is_same_v<T, bool>) return "true/false";
  else if constexpr (std::is_same_v<T, std::string>) return "text";
  else if constexpr (std::is_same_v<T, std::vector<int64_t>>) return "list of integers";
  else if constexpr (std::is_same_v<T, std::vector<double>>) return "list of numbers";
  else if constexpr (std::is_same_v<T, std::vector<std::string>>) return "list of text";
  else if constexpr (kIsList<T>) return "list of sections";
  else if constexpr (kIsNamed<T>) return "named sections";
  else return "section";
}

class Explainer {
 public:
  explicit Explainer(std::string section) : section_(std::move(section)) {}
  std::vector<KeyInfo> keys;

  template <typename T>
  void field(const char* name, const T& value, const Doc& doc, const Rule& rule) {
    KeyInfo info;
    info.key = section_.empty() ? name : section_ + "." + name;
    info.type = type_name<T>();
    info.units = doc.units;
    info.meaning = doc.meaning;
    info.allowed = describe_rule(rule);
    if constexpr (kIsList<T> || kIsNamed<T>) {
      using Item = typename T::value_type;
      keys.push_back(info);
      if constexpr (kIsNamed<T>) descend<typename T::mapped_type>(info.key + ".*");
      else if constexpr (kIsSection<Item>)
        descend<Item>(info.key + ".*");
    } else if constexpr (kIsOptional<T>) {
      info.default_value = "null";
      keys.push_back(info);
      if constexpr (kIsSection<typename T::value_type>) descend<typename T::value_type>(info.key);
    } else if constexpr (kIsSection<T>) {
      info.is_section = true;
      keys.push_back(info);
      descend<T>(info.key);
    } else {
      info.default_value = scalar(value);
      keys.push_back(info);
    }
  }

 private:
  template <typename Struct>
  void descend(const std::string& key) {
    Explainer inner(key);
    const Struct defaults;
    Struct::visit(inner, defaults);
    keys.insert(keys.end(), inner.keys.begin(), inner.keys.end());
  }
  std::string section_;
};

std::string explain_one(const KeyInfo& info) {
  std::string line = fmt::format("{}\n    {}", info.key, info.type);
  if (!info.allowed.empty()) line += ", " + info.allowed;
  if (!info.default_value.empty()) line += ", default " + info.default_value;
  if (!info.units.empty()) line += ", in " + info.units;
  return line + "\n    " + info.meaning + "\n";
}

}  // namespace

std::string dump_recipe(const Recipe& recipe) {
  Dumper dumper(0);
  Recipe::visit(dumper, recipe);
  return dumper.text;
}

std::string dump_model_config(const ModelConfig& model) {
  Dumper dumper(0);
  ModelConfig::visit(dumper, model);
  return dumper.text;
}

std::vector<KeyInfo> recipe_schema() {
  Explainer explainer("");
  const Recipe defaults;
  Recipe::visit(explainer, defaults);
  return explainer.keys;
}

std::string explain_recipe(std::string_view key) {
  std::string text;
  std::vector<std::string> names;
  for (const KeyInfo& info : recipe_schema()) {
    names.push_back(info.key);
    const bool wanted = key.empty() || info.key == key ||
                        (info.key.size() > key.size() && info.key.starts_with(key) &&
                         info.key[key.size()] == '.');
    if (wanted) text += explain_one(info);
  }
  if (text.empty())
    fail<ConfigError>("no recipe key '{}'{}", key, did_you_mean(key, names));
  return text;
}

}  // namespace lh
