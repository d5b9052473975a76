#include "launch/log_folder.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/error.h"

namespace lh {
namespace {

namespace fs = std::filesystem;

/// The job id as part of a file name.
std::string file_name(std::string text) {
  for (char& c : text)
    if (c == '/' || c == '\0') c = '_';
  return text;
}

}  // namespace

LogFolder::LogFolder(const LaunchPlan& plan) {
  const LaunchOptions& o = plan.options;
  for (const Streams& streams : plan.to_file) kept_ |= streams.out || streams.err;
  const bool given = !o.log_dir.empty() && o.log_dir != "/dev/null";
  kept_ |= given;
  const fs::path parent = given ? fs::path(o.log_dir) : fs::temp_directory_path();
  std::error_code error;
  fs::create_directories(parent, error);
  const std::string start = given ? file_name(plan.job_id) : "longhand_launch";
  std::string name = (parent / (start + "_XXXXXX")).string();
  if (::mkdtemp(name.data()) == nullptr)
    fail<IoError>("cannot make the log folder {}: {}", name, std::strerror(errno));
  path_ = fs::absolute(name);
}

LogFolder::~LogFolder() {
  std::error_code ignored;
  if (!kept_) fs::remove_all(path_, ignored);
}

fs::path LogFolder::worker(int64_t generation, int64_t local_rank) const {
  const fs::path folder = path_ / fmt::format("attempt_{}/{}", generation, local_rank);
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) fail<IoError>("cannot make {}: {}", folder.string(), error.message());
  return folder;
}

std::string line_prefix(const std::string& pattern, const std::string& role, int64_t local_rank,
                        int64_t rank) {
  std::string result = pattern.empty() ? "[${role_name}${local_rank}]:" : pattern;
  for (const auto& [name, value] : {std::pair<std::string, std::string>{"${role_name}", role},
                                    {"${local_rank}", std::to_string(local_rank)},
                                    {"${rank}", std::to_string(rank)}})
    for (size_t at = 0; (at = result.find(name, at)) != std::string::npos; at += value.size())
      result.replace(at, name.size(), value);
  return result;
}

}  // namespace lh
