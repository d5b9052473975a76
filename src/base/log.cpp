#include "base/log.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>

#include "base/error.h"

namespace lh {
namespace {

LogLevel initial_level() {
  const char* name = std::getenv("LH_LOG_LEVEL");
  if (name == nullptr) return LogLevel::kInfo;
  try {
    return parse_log_level(name);
  } catch (const ConfigError&) {
    return LogLevel::kInfo;
  }
}

std::atomic<LogLevel> g_level{initial_level()};
std::mutex g_mutex;
void (*g_before)() = nullptr;
void (*g_after)() = nullptr;

}  // namespace

void set_log_level(LogLevel level) {
  g_level = level;
}

LogLevel log_level() {
  return g_level;
}

LogLevel parse_log_level(std::string_view name) {
  if (name == "debug") return LogLevel::kDebug;
  if (name == "info") return LogLevel::kInfo;
  if (name == "warn") return LogLevel::kWarn;
  if (name == "error") return LogLevel::kError;
  if (name == "silent") return LogLevel::kSilent;
  fail<ConfigError>("log level: expected debug, info, warn, error or silent, got '{}'", name);
}

void log_message(LogLevel level, std::string_view message) {
  const std::lock_guard lock(g_mutex);
  const char* prefix = level == LogLevel::kWarn    ? "warning: "
                       : level == LogLevel::kError ? "error: "
                                                   : "";
  if (g_before != nullptr) g_before();
  std::fprintf(stderr, "%s%.*s\n", prefix, static_cast<int>(message.size()), message.data());
  if (g_after != nullptr) g_after();
}

void set_log_hooks(void (*before)(), void (*after)()) {
  const std::lock_guard lock(g_mutex);
  g_before = before;
  g_after = after;
}

}  // namespace lh
