#include "base/error.h"

#include <cstring>

namespace lh::detail {

void check_failed(const char* file, int line, const char* condition, const std::string& message) {
  // Only the path below src/ helps a reader; the build machine's prefix does not.
  const char* below = std::strstr(file, "/src/");
  throw Error(fmt::format("{}\n  [check {} at {}:{}]", message, condition,
                          below != nullptr ? below + 1 : file, line));
}

}  // namespace lh::detail
