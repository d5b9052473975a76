#include "data/find_files.h"

#include <glob.h>

#include <cerrno>
#include <cstring>
#include <set>

#include "base/error.h"

namespace lh {
namespace fs = std::filesystem;

namespace {

std::vector<fs::path> expand(const std::string& pattern) {
  std::error_code ignored;
  // A file may have a name with glob characters in it; then it is meant itself.
  if (pattern == "-" || fs::exists(pattern, ignored)) return {pattern};
  if (pattern.find_first_of("*?[") == std::string::npos)
    fail<ConfigError>("no such file: {}", pattern);
  glob_t found{};
  const int status = ::glob(pattern.c_str(), 0, nullptr, &found);  // sorts its matches
  std::vector<fs::path> paths(found.gl_pathv, found.gl_pathv + (status == 0 ? found.gl_pathc : 0));
  ::globfree(&found);
  if (status != 0 && status != GLOB_NOMATCH)
    fail<IoError>("cannot look for {}: {}", pattern, std::strerror(errno));
  if (paths.empty()) fail<ConfigError>("no file matches {}", pattern);
  return paths;
}

}  // namespace

std::vector<fs::path> find_files(std::span<const std::string> patterns) {
  std::vector<fs::path> files;
  std::set<fs::path> seen;
  for (const std::string& pattern : patterns) {
    for (const fs::path& path : expand(pattern)) {
      std::error_code ignored;
      if (path != "-" && fs::is_directory(path, ignored))
        fail<ConfigError>("{0} is a folder; name its files, e.g. '{0}/*'", path.string());
      if (seen.insert(path).second) files.push_back(path);
    }
  }
  return files;
}

}  // namespace lh
