#include "launch/event_loop.h"

#include <poll.h>

#include <chrono>
#include <vector>

namespace lh {

void EventLoop::run_once(int milliseconds) {
  std::vector<pollfd> fds;
  for (const auto& [fd, watch] : watches_) fds.push_back({fd, watch.events, 0});
  if (::poll(fds.data(), fds.size(), milliseconds) <= 0) return;
  for (const pollfd& p : fds) {
    if (p.revents == 0) continue;
    const auto found = watches_.find(p.fd);
    if (found == watches_.end()) continue;    // an earlier callback forgot it
    const Ready ready = found->second.ready;  // a copy: the callback may replace itself
    ready(p.revents);
  }
}

double monotonic_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace lh
