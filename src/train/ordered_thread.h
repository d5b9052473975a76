// A thread that does numbered tasks in their order, each once it may begin.
#pragma once

#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

namespace lh {

class OrderedThread {
 public:
  /// `abandon` makes a task that waits for other processes throw; called when the object ends before its tasks.
  /// at_once: there is no thread, allow() does the tasks itself (plans, in which nothing takes time).
  OrderedThread(std::function<void(size_t)> task, std::function<void()> abandon, bool at_once = false);
  ~OrderedThread();
  OrderedThread(const OrderedThread&) = delete;
  OrderedThread& operator=(const OrderedThread&) = delete;

  /// Begins a round of tasks 0 to count - 1, none of which may run yet. The last round must be over.
  void start(size_t count);
  bool is_started() const;
  /// Tasks below `count` may run.
  void allow(size_t count);
  /// Until all tasks of the round are done, which ends it. Throws what a task threw, now and in every later round.
  void wait();

 private:
  void run();

  const std::function<void(size_t)> task_;
  const std::function<void()> abandon_;
  const bool at_once_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  size_t count_ = 0, allowed_ = 0, done_ = 0;
  bool started_ = false, stop_ = false;
  std::exception_ptr failure_;
  std::thread thread_;
};

}  // namespace lh
