#include "cli/report.h"

#include <new>

#include "base/log.h"
#include "cli/app.h"
#include "dist/comm_error.h"
#include "launch/error_file.h"

namespace lh {
namespace {

std::string message_of(const std::exception& error) {
  const bool memory = dynamic_cast<const std::bad_alloc*>(&error) != nullptr;
  return fmt::format("{}{}", memory ? "out of memory: " : "", error.what());
}

}  // namespace

int exit_code_of(const std::exception& error) {
  if (const auto* peer = dynamic_cast<const PeerFailure*>(&error)) return peer->exit_code();
  if (dynamic_cast<const CommInterrupted*>(&error) != nullptr) return kExitStopped;
  if (dynamic_cast<const ConfigError*>(&error) != nullptr) return kExitUsage;
  return kExitError;
}

int report_failure(const std::exception& error) {
  if (dynamic_cast<const PeerFailure*>(&error) != nullptr || dynamic_cast<const CommInterrupted*>(&error) != nullptr)
    return report_consequence(error);
  const std::string message = message_of(error);
  log_error("{}", message);
  // A launcher shows the last words as the cause, those of a consequence only if there are no others: what goes wrong
  // between processes is the fault of another one, most often.
  const bool consequence = dynamic_cast<const CommError*>(&error) != nullptr;
  write_last_words(message, consequence, log_level() <= LogLevel::kError);
  return exit_code_of(error);
}

int report_consequence(const std::exception& error) {
  log_debug("this process follows another: {}", error.what());
  write_last_words(message_of(error), true);
  return exit_code_of(error);
}

}  // namespace lh
