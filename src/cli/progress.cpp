#include "cli/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "base/log.h"

namespace lh {
namespace {

// Log lines from other threads are written around the status line of the one bar in use.
ProgressLine* g_active = nullptr;

void wipe() {
  if (g_active != nullptr) std::fputs("\r\033[K", stderr);
}

size_t terminal_width() {
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

}  // namespace

ProgressLine::ProgressLine() {
  const char* term = std::getenv("TERM");
  live_ = isatty(STDERR_FILENO) == 1 && term != nullptr && std::string(term) != "dumb";
  if (live_) {
    g_active = this;
    set_log_hooks(wipe, nullptr);
  }
}

ProgressLine::~ProgressLine() {
  if (!live_) return;
  clear();
  set_log_hooks(nullptr, nullptr);
  g_active = nullptr;
}

void ProgressLine::update(double share, const std::string& text) {
  if (!live_) return;
  constexpr int kCells = 24;
  std::string line;
  if (share >= 0) {
    const int full = static_cast<int>(std::lround(std::clamp(share, 0.0, 1.0) * kCells));
    line = fmt::format("[{}{}] ", std::string(static_cast<size_t>(full), '#'),
                       std::string(static_cast<size_t>(kCells - full), ' '));
  }
  line += text;
  line.resize(std::min(line.size(), terminal_width() - 1));
  shown_ = line;
  std::fprintf(stderr, "\r\033[K%s", shown_.c_str());
  std::fflush(stderr);
}

void ProgressLine::clear() {
  if (!live_ || shown_.empty()) return;
  std::fputs("\r\033[K", stderr);
  std::fflush(stderr);
  shown_.clear();
}

}  // namespace lh
