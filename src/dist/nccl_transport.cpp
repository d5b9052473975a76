// Point-to-point messages in one group call, as NCCL's own all-to-all is made, on a communicator whose calls never
// block. A thread of the transport watches what the device has not done yet.
#include "dist/nccl_transport.h"

#include <nccl.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "runtime/gpu.h"

namespace lh {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr auto kGlance = 20ms;    // between two looks at what the device has not done
constexpr auto kFarewell = 10s;   // for the end of a group: others may have ended in a failure of their own

bool accepted(ncclResult_t code) {
  return code == ncclSuccess || code == ncclInProgress;
}

class NcclTransport final : public Transport {
 public:
  NcclTransport(Store& store, int rank, int size, Device device, Store::Timeout timeout)
      : device_(device), timeout_(timeout) {
    gpu::make_current(device);
    ncclUniqueId identity{};
    if (rank == 0) {
      if (const ncclResult_t code = ncclGetUniqueId(&identity); code != ncclSuccess)
        fail<CommError>("[nccl] identity of the group: {}", words(code));
      store.set("nccl", std::string(identity.internal, sizeof identity.internal));
    } else {
      const std::string bytes = store.get("nccl", timeout);
      if (bytes.size() != sizeof identity.internal)
        fail<CommError>("[nccl] the identity of the group has {} bytes, expected {}", bytes.size(),
                        sizeof identity.internal);
      bytes.copy(identity.internal, bytes.size());
    }
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    try {
      // Asking for a key throws when the job has failed (Peers): somebody who will not come is the reason to stop.
      settle(ncclCommInitRankConfig(&comm_, size, identity, rank, &config), "start of the group", timeout_,
             [&] { store.find("failure"); });
    } catch (...) {
      const std::lock_guard lock(mutex_);
      abort();
      throw;
    }
    watcher_ = std::jthread([this](const std::stop_token& stop) { watch(stop); });
  }

  ~NcclTransport() override {
    take_leave();
    watcher_.request_stop();
    watcher_.join();
    const std::lock_guard lock(mutex_);
    abort();
  }

  const char* name() const override { return "nccl"; }
  bool on_device() const override { return true; }

  void exchange(std::span<const Transfer> out, std::span<const Transfer> in) override {
    const gpu::Stream stream = gpu::stream(device_);
    ncclResult_t code = ncclSuccess;
    {
      const std::lock_guard lock(mutex_);
      require_usable();
      code = ncclGroupStart();
      if (accepted(code)) {
        for (const Transfer& t : out)
          if (accepted(code)) code = ncclSend(t.data, t.bytes, ncclChar, t.peer, comm_, stream);
        for (const Transfer& t : in)
          if (accepted(code)) code = ncclRecv(t.data, t.bytes, ncclChar, t.peer, comm_, stream);
        const ncclResult_t end = ncclGroupEnd();  // also after a failure, or all later calls would join this group
        if (accepted(code)) code = end;
      }
    }
    settle(code, "an exchange", timeout_);
    auto done = std::make_unique<gpu::Event>(device_);
    done->record();
    const std::lock_guard lock(mutex_);
    require_usable();  // another thread may have given the group up since
    given_.push_back({std::move(done), Clock::now() + timeout_});
    changed_.notify_all();
  }

  void check() override {
    const std::lock_guard lock(mutex_);
    require_usable();
  }

  void abandon() override {
    const std::lock_guard lock(mutex_);
    abandoned_ = true;
    abort();
  }

 private:
  /// An exchange on the device's stream, that is to be done at a time.
  struct Given {
    std::unique_ptr<gpu::Event> done;
    Clock::time_point end;
  };

  std::string words(ncclResult_t code) const {
    return fmt::format("{} ({})", ncclGetErrorString(code), ncclGetLastError(comm_));
  }

  // What follows down to settle() is called with mutex_ locked: comm_ is no more after an abort, which another thread
  // may do.

  void abort() {
    if (comm_ != nullptr) ncclCommAbort(std::exchange(comm_, nullptr));
    given_.clear();
    changed_.notify_all();
  }

  void give_up(const std::string& why) {
    failure_ = why;
    abort();
  }

  [[noreturn]] void refuse() const {
    if (abandoned_) fail<CommAbandoned>("[dist] the group was given up");
    fail<CommError>("[nccl] {}", failure_);
  }

  ncclResult_t state() const {
    ncclResult_t state = ncclSuccess;
    const ncclResult_t asked = ncclCommGetAsyncError(comm_, &state);
    return asked == ncclSuccess ? state : asked;
  }

  void require_usable() {
    if (comm_ != nullptr)
      if (const ncclResult_t now = state(); !accepted(now)) give_up("an earlier exchange: " + words(now));
    if (comm_ == nullptr) refuse();
  }

  /// Waits until NCCL has done on the host what a call that returned `code` told it, and calls `meanwhile` now and
  /// then.
  void settle(ncclResult_t code, const char* what, Clock::duration timeout,
              const std::function<void()>& meanwhile = nullptr) {
    const auto end = Clock::now() + timeout;
    auto called = Clock::now();
    for (auto pause = 20us;; pause = std::min<std::chrono::microseconds>(2 * pause, 5ms)) {
      {
        const std::lock_guard lock(mutex_);
        if (!accepted(code)) give_up(fmt::format("{}: {}", what, words(code)));
        if (code == ncclInProgress && Clock::now() > end) give_up(late(what, timeout));
        if (abandoned_ || !failure_.empty()) refuse();
        if (code == ncclSuccess) return;
        code = state();
        if (code == ncclSuccess) return;
      }
      std::this_thread::sleep_for(pause);
      if (meanwhile && Clock::now() - called > 5 * kGlance) {
        meanwhile();
        called = Clock::now();
      }
    }
  }

  static std::string late(const char* what, Clock::duration timeout) {
    return fmt::format("{} is not done after {:g} s (LH_COMM_TIMEOUT): another process is dead, stopped or cut off",
                       what, std::chrono::duration<double>(timeout).count());
  }

  void watch(const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    while (changed_.wait(lock, stop, [this] { return !given_.empty(); }) && !stop.stop_requested()) {
      try {
        while (!given_.empty() && given_.front().done->done()) given_.pop_front();
        if (given_.empty()) {
          changed_.notify_all();
          continue;
        }
        const ncclResult_t now = state();
        if (!accepted(now)) {
          give_up("an exchange: " + words(now));
        } else if (Clock::now() > given_.front().end) {
          give_up(late("an exchange", timeout_));
        }
      } catch (const Error& device) {
        give_up(device.what());
      }
      changed_.wait_for(lock, stop, kGlance, [] { return false; });
    }
  }

  /// Others may still read what this process sent: NCCL's end of a group waits for that.
  void take_leave() {
    const auto end = Clock::now() + kFarewell;
    {
      std::unique_lock lock(mutex_);
      changed_.wait_until(lock, end, [this] { return given_.empty(); });
      if (comm_ == nullptr || !given_.empty() || !accepted(ncclCommFinalize(comm_))) return;
    }
    try {
      settle(ncclInProgress, "end of the group", kFarewell);
    } catch (const CommError&) {
      return;
    }
    const std::lock_guard lock(mutex_);
    if (comm_ != nullptr) ncclCommDestroy(std::exchange(comm_, nullptr));
  }

  const Device device_;
  const Clock::duration timeout_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  ncclComm_t comm_ = nullptr;
  std::deque<Given> given_;
  std::string failure_;
  bool abandoned_ = false;
  std::jthread watcher_;
};

}  // namespace

const std::string& nccl_unavailable() {
  static const std::string none;
  return none;
}

std::shared_ptr<Transport> connect_nccl(std::shared_ptr<Store> store, int rank, int size,
                                        Device device, Store::Timeout timeout) {
  return std::make_shared<NcclTransport>(*store, rank, size, device, timeout);
}

}  // namespace lh
