// What the launcher prints, from a thread of its own: a reader that stalls (less, a slow terminal)
// must not stop the heartbeats.
#pragma once

#include <condition_variable>
#include <deque>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/log.h"

namespace lh {

class Console {
 public:
  Console();
  /// Prints what is left, then ends the thread.
  ~Console();
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

  /// One line to stderr, as base/log.h writes it.
  void say(LogLevel level, std::string text);

  /// Copies whole lines that are appended to the file to fd, each behind `prefix`.
  void follow(const std::filesystem::path& file, const std::string& prefix, int fd);

  /// Appends those of its lines that contain one of the words to `copy`, behind `prefix`.
  void filter(const std::filesystem::path& file, const std::string& prefix, const std::vector<std::string>& words,
              const std::filesystem::path& copy);

  /// The files followed so far are complete: prints their rest, then lets them go.
  void finish_following();

 private:
  struct Tail;
  void run();
  void add(std::shared_ptr<Tail> tail);
  bool copy(Tail& tail);

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::pair<LogLevel, std::string>> lines_;
  std::vector<std::shared_ptr<Tail>> tails_;
  bool end_ = false;
  std::thread thread_;
};

}  // namespace lh
