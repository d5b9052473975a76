// The place in a kernel that called a wrapper: a defaulted last argument of every wrapper.
#pragma once

namespace xpu {

struct Where {
  const char* file;
  int line;

  static constexpr Where here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
  bool operator==(const Where&) const = default;
};

}  // namespace xpu
