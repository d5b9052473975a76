// One thread that waits for many file descriptors.
#pragma once

#include <functional>
#include <map>

namespace lh {

class EventLoop {
 public:
  using Ready = std::function<void(short events)>;

  /// Calls `ready` with poll's events whenever fd has one of `events`; replaces an earlier watch.
  void watch(int fd, short events, Ready ready) { watches_[fd] = {events, std::move(ready)}; }
  void forget(int fd) { watches_.erase(fd); }

  /// Waits at most so long, then calls what is ready. Callbacks may watch and forget; they must
  /// not block, and must put up with being called for nothing.
  void run_once(int milliseconds);

 private:
  struct Watch {
    short events = 0;
    Ready ready;
  };
  std::map<int, Watch> watches_;
};

/// Seconds from a clock that never jumps.
double monotonic_seconds();

}  // namespace lh
