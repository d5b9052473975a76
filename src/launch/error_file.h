// A worker's last words: the file in which it says why it ends, for whoever started it.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace lh {

struct LastWords {
  std::string message;       // "" when the worker left none
  bool consequence = false;  // "I end because another rank did"
  bool printed = false;      // the worker has said the same on stderr
  double age = 0;            // seconds since they were written
};

/// Writes the file that LH_ERROR_FILE names, else TORCHELASTIC_ERROR_FILE, in the format that
/// torchrun shows as well. Does nothing without either; never throws.
void write_last_words(std::string_view message, bool consequence = false, bool printed = false);

/// The same for a launcher, whose own TORCHELASTIC_ERROR_FILE belongs to whoever started it: the root cause of
/// the job's end, in the worker's words if it left any. As torch has it, errorCode is the worker's exit code, or
/// -n for signal n. Overwrites what is there; does nothing without the variable; never throws.
void pass_on_last_words(std::string_view description, std::string_view words, int error_code);

/// Reads such a file, torch's own formats included, or plain text. Never throws; the message is cut
/// to a few kilobytes.
LastWords read_last_words(const std::filesystem::path& path);

/// The last lines of a log that say something, for a worker that wrote no such file; "" if none.
std::string last_log_line(const std::filesystem::path& path);

}  // namespace lh
