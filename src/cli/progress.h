// A status line that redraws itself on a terminal and stays silent in a log.
#pragma once

#include <string>

namespace lh {

class ProgressLine {
 public:
  ProgressLine();
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  /// True when stderr is a terminal.
  bool live() const { return live_; }
  /// Redraws "[#####     ] text" for a share in [0, 1]; a negative share draws no bar.
  void update(double share, const std::string& text);
  /// Wipes the line, so that other output starts at the left edge.
  void clear();

 private:
  bool live_;
  std::string shown_;
};

}  // namespace lh
