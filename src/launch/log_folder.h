// Where a node's workers write: torchrun's layout,
//   <log-dir>/<job id>_<random>/attempt_<generation>/<local
//   rank>/{stdout.log,stderr.log,error.json}
#pragma once

#include <filesystem>
#include <string>

#include "launch/options.h"

namespace lh {

class LogFolder {
 public:
  /// Makes the folder; without --log-dir a temporary one. IoError if it can't.
  explicit LogFolder(const LaunchPlan& plan);
  /// Removes it if nobody asked for its content.
  ~LogFolder();
  LogFolder(const LogFolder&) = delete;
  LogFolder& operator=(const LogFolder&) = delete;

  /// Makes and returns the folder of one worker.
  std::filesystem::path worker(int64_t generation, int64_t local_rank) const;
  const std::filesystem::path& path() const { return path_; }
  /// The user asked for files here.
  bool kept() const { return kept_; }

 private:
  std::filesystem::path path_;
  bool kept_ = false;
};

/// torchrun's "[default0]:", or what TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE says, with ${role_name},
/// ${local_rank} and ${rank} replaced.
std::string line_prefix(const std::string& pattern, const std::string& role, int64_t local_rank,
                        int64_t rank);

}  // namespace lh
