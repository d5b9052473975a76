#include "data/prefetcher.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "base/timer.h"

namespace lh {

namespace {
// A signal handler can't wake a condition variable, so a waiting consumer looks at the flag itself.
constexpr std::chrono::milliseconds kPoll{10};
}  // namespace

struct Prefetcher::State {
  void run(int64_t index) {
    try {
      for (;; ++index) {
        {
          std::unique_lock lock(mutex);
          has_room.wait(lock,
                        [&] { return closing || static_cast<int64_t>(ready.size()) < depth; });
          if (closing) return;
        }
        std::optional<Batch> batch = produce(index);
        std::lock_guard lock(mutex);
        if (!batch) break;
        ready.push_back(std::move(*batch));
        has_batch.notify_one();
      }
    } catch (...) {
      std::lock_guard lock(mutex);
      error = std::current_exception();
    }
    std::lock_guard lock(mutex);
    ended = true;
    has_batch.notify_one();
  }

  Produce produce;
  int64_t depth;
  std::mutex mutex;
  std::condition_variable has_batch, has_room;
  std::deque<Batch> ready;
  bool ended = false, closing = false;
  std::exception_ptr error;
  double waited = 0;
  std::thread thread;
};

Prefetcher::Prefetcher(Produce produce, int64_t first, int64_t depth)
    : state_(std::make_unique<State>()) {
  LH_CHECK(depth >= 1, "[data] prefetch of {} batches", depth);
  state_->produce = std::move(produce);
  state_->depth = depth;
  state_->thread = std::thread([state = state_.get(), first] { state->run(first); });
}

Prefetcher::~Prefetcher() {
  {
    std::lock_guard lock(state_->mutex);
    state_->closing = true;
  }
  state_->has_room.notify_all();
  state_->thread.join();
}

Fetch Prefetcher::next(Batch& batch, const std::atomic<bool>* stop,
                       std::chrono::milliseconds timeout) {
  State& s = *state_;
  const Timer timer;
  std::unique_lock lock(s.mutex);
  Fetch result = Fetch::kReady;
  while (s.ready.empty() && !s.ended) {
    const auto elapsed = std::chrono::duration<double>(timer.seconds());
    if (stop != nullptr && stop->load())
      result = Fetch::kStopped;
    else if (elapsed >= timeout)
      result = Fetch::kTimeout;
    if (result != Fetch::kReady) break;
    s.has_batch.wait_for(lock, std::min(kPoll, std::max(timeout, std::chrono::milliseconds(1))));
  }
  s.waited += timer.seconds();
  if (result != Fetch::kReady) return result;
  if (s.ready.empty()) {
    if (s.error) std::rethrow_exception(s.error);
    return Fetch::kEnd;
  }
  batch = std::move(s.ready.front());
  s.ready.pop_front();
  s.has_room.notify_one();
  return Fetch::kReady;
}

double Prefetcher::waited_seconds() const {
  std::lock_guard lock(state_->mutex);
  return state_->waited;
}

}  // namespace lh
