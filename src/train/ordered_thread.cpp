#include "train/ordered_thread.h"

#include <omp.h>

#include "base/error.h"

namespace lh {

OrderedThread::OrderedThread(std::function<void(size_t)> task, std::function<void()> abandon,
                             bool at_once)
    : task_(std::move(task)), abandon_(std::move(abandon)), at_once_(at_once) {
  if (!at_once) thread_ = std::thread([this] { run(); });
}

OrderedThread::~OrderedThread() {
  bool working = false;
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    working = done_ < allowed_ && failure_ == nullptr;
  }
  if (working) abandon_();
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void OrderedThread::run() {
  omp_set_num_threads(1);  // the cores are busy with what this runs beside
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stop_ || (done_ < allowed_ && failure_ == nullptr); });
    if (stop_) return;
    const size_t index = done_;
    lock.unlock();
    std::exception_ptr failure;
    try {
      task_(index);
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    if (failure != nullptr) failure_ = failure;
    else ++done_;
    changed_.notify_all();
  }
}

void OrderedThread::start(size_t count) {
  const std::lock_guard lock(mutex_);
  LH_CHECK(!started_, "[thread] a round of tasks begins before the last one is over");
  count_ = count;
  allowed_ = done_ = 0;
  started_ = true;
}

bool OrderedThread::is_started() const {
  const std::lock_guard lock(mutex_);
  return started_;
}

void OrderedThread::allow(size_t count) {
  if (at_once_)
    for (; done_ < count; ++done_) task_(done_);
  {
    const std::lock_guard lock(mutex_);
    allowed_ = count;
  }
  changed_.notify_all();
}

void OrderedThread::wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return done_ == count_ || failure_ != nullptr; });
  if (failure_ != nullptr) std::rethrow_exception(failure_);
  started_ = false;
}

}  // namespace lh
