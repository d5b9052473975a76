#include "launch/error_file.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace lh {
namespace {

using nlohmann::json;
constexpr size_t kLongest = 8 << 10;  // bytes of a message: it travels to every node

double unix_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string trimmed(std::string text) {
  const auto keep = text.find_last_not_of(" \t\r\n");
  text.resize(keep == std::string::npos ? 0 : keep + 1);
  if (text.size() > kLongest) text = text.substr(0, kLongest) + " ...";
  return text;
}

void write_file(const char* path, const json& words) {
  if (path == nullptr || *path == '\0') return;
  // Whole or absent, because the reader may come at any moment.
  const std::string temporary = fmt::format("{}.part", path);
  std::ofstream(temporary) << words.dump(-1, ' ', false, json::error_handler_t::replace);
  std::filesystem::rename(temporary, path);
}

/// The last `bytes` of a file; "" when it can't be read.
std::string tail_of(const std::filesystem::path& path, int64_t bytes) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return "";
  const auto size = static_cast<int64_t>(file.tellg());
  file.seekg(std::max<int64_t>(0, size - bytes));
  return std::string(std::istreambuf_iterator<char>(file), {});
}

/// The age behind a time stamp of 1-s or better resolution, given as a number or a string.
double age_of(const json& stamp, double now) {
  double then = now;
  if (stamp.is_number())
    then = stamp.get<double>();
  else if (stamp.is_string())
    then = std::atof(stamp.get<std::string>().c_str());
  const double age = now - then;
  return age > 0 && age < 3600 ? age : 0;
}

}  // namespace

void write_last_words(std::string_view message, bool consequence, bool printed) {
  const char* path = std::getenv("LH_ERROR_FILE");
  if (path == nullptr) path = std::getenv("TORCHELASTIC_ERROR_FILE");
  try {
    const double now = unix_seconds();
    const std::string said = trimmed(std::string(message));
    const json words = {{"message",
                         {{"message", said},
                          {"extraInfo",
                           {{"py_callstack", said},  // what torchrun shows as the traceback
                            {"timestamp", fmt::format("{}", static_cast<int64_t>(now))},
                            {"exact_timestamp", now},
                            {"consequence", consequence},
                            {"printed", printed}}}}}};
    write_file(path, words);
  } catch (const std::exception&) {
    // The error itself goes to stderr in any case.
  }
}

void pass_on_last_words(std::string_view description, std::string_view words, int error_code) {
  try {
    const std::string message = trimmed(std::string(words.empty() ? description : words));
    write_file(std::getenv("TORCHELASTIC_ERROR_FILE"),
               {{"message",
                 {{"message", message},
                  {"errorCode", error_code},
                  {"extraInfo",
                   {{"py_callstack", std::string(description)},
                    {"timestamp", fmt::format("{}", static_cast<int64_t>(unix_seconds()))}}}}}});
  } catch (const std::exception&) {
    // The report itself goes to stderr in any case.
  }
}

LastWords read_last_words(const std::filesystem::path& path) {
  LastWords words;
  const std::string content = tail_of(path, 1 << 20);
  if (content.empty()) return words;
  const double now = unix_seconds();
  try {
    const json file = json::parse(content);
    const json& message = file.at("message");
    if (message.is_object()) {
      words.message = trimmed(message.at("message").get<std::string>());
      const json extra = message.value("extraInfo", json::object());
      words.consequence = extra.value("consequence", false);
      words.printed = extra.value("printed", false);
      // torch's stamps are whole seconds: too coarse to order failures by.
      if (extra.contains("exact_timestamp")) words.age = age_of(extra["exact_timestamp"], now);
    } else {
      words.message = trimmed(message.get<std::string>());
    }
  } catch (const json::exception&) {
    words.message = trimmed(content);
  }
  return words;
}

std::string last_log_line(const std::filesystem::path& path) {
  const std::string text = trimmed(tail_of(path, 4 << 10));
  const size_t line = text.rfind('\n');
  return line == std::string::npos ? text : text.substr(line + 1);
}

}  // namespace lh
