// Leveled logging to stderr: log_info("[data] {} shards", n). Metrics do not go through here.
#pragma once

#include <fmt/format.h>

#include <string_view>
#include <utility>

namespace lh {

enum class LogLevel { kDebug, kInfo, kWarn, kError, kSilent };

/// Messages below the level are dropped. Initial level: LH_LOG_LEVEL, else info.
void set_log_level(LogLevel level);
LogLevel log_level();

/// Parses debug|info|warn|error|silent; throws ConfigError otherwise.
LogLevel parse_log_level(std::string_view name);

/// Writes one line to stderr. A live progress line (cli) registers a hook to redraw around it.
void log_message(LogLevel level, std::string_view message);

/// Called before and after each log line; used by the progress bar. Pass nullptr to clear.
void set_log_hooks(void (*before)(), void (*after)());

template <typename... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) {
  if (log_level() <= LogLevel::kDebug)
    log_message(LogLevel::kDebug, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  if (log_level() <= LogLevel::kInfo)
    log_message(LogLevel::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void log_warn(fmt::format_string<Args...> format, Args&&... args) {
  if (log_level() <= LogLevel::kWarn)
    log_message(LogLevel::kWarn, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void log_error(fmt::format_string<Args...> format, Args&&... args) {
  if (log_level() <= LogLevel::kError)
    log_message(LogLevel::kError, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace lh
