// A device for tests on machines without one: kernels run in the emulator (kernels/xpu/emu), device
// memory is host memory, and every call is finished when it returns.
#include <sys/mman.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

#include "base/error.h"
#include "kernels/xpu/emu/stream.h"
#include "runtime/gpu.h"
#include "runtime/gpu_driver.h"

namespace lh::gpu {
namespace {

constexpr int64_t kMemoryBytes = int64_t{4} << 30;
std::atomic<int64_t> waits{0};

CUstream_st& own_stream() {
  static std::array<CUstream_st, kLanes> streams;
  return streams[static_cast<size_t>(lane())];
}

void refuse_in_recording(const char* what) {
  if (own_stream().recording != nullptr) fail("[cuda] {} cannot be recorded", what);
}

using Work = std::vector<std::function<void()>>;

class WorkList final : public Recording {
 public:
  explicit WorkList(Work work) : work_(std::move(work)) {}
  void replay() override {
    for (const auto& run : work_) run();
  }

 private:
  Work work_;
};

}  // namespace

int device_count() {
  return 1;
}

const std::string& unavailable_reason() {
  static const std::string none;
  return none;
}

DeviceInfo device_info(Device) {
  return {.name = "emulated device", .capability = 90, .multiprocessors = 4,
          .memory_bytes = kMemoryBytes, .emulated = true};
}

Stream stream(Device) {
  return &own_stream();
}

void make_current(Device) {}

AddressRange reserve_addresses(Device) {
  void* range = mmap(nullptr, kMemoryBytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (range == MAP_FAILED) fail("no address space for the emulated device");
  return {static_cast<char*>(range), static_cast<size_t>(kMemoryBytes)};
}

size_t commit(Device, const AddressRange&, size_t, size_t end) {
  return end;
}

void copy_in(Device, void* to, const void* host, size_t bytes) {
  refuse_in_recording("a copy to the device");
  std::memcpy(to, host, bytes);
}

void copy_out(Device, void* host, const void* from, size_t bytes) {
  refuse_in_recording("a copy from the device");
  ++waits;
  std::memcpy(host, from, bytes);
}

void fill_bytes(Device, void* to, int value, size_t bytes) {
  xpu::emu::enqueue(&own_stream(), [=] { std::memset(to, value, bytes); });
}

void synchronize(Device) {
  refuse_in_recording("waiting for the device");
  ++waits;
}

void start_recording(Device) {
  refuse_in_recording("a recording");
  own_stream().recording = new Work;
}

std::unique_ptr<Recording> stop_recording(Device) {
  const std::unique_ptr<Work> work(std::exchange(own_stream().recording, nullptr));
  return std::make_unique<WorkList>(std::move(*work));
}

int64_t wait_count(Device) {
  return waits;
}

// Work is done when its call returns, so an event is the time of its recording.
using Moment = std::chrono::steady_clock::time_point;

Event::Event(Device device) : device_(device), handle_(new Moment) {}

Event::~Event() {
  delete static_cast<Moment*>(handle_);
}

void Event::record() {
  *static_cast<Moment*>(handle_) = std::chrono::steady_clock::now();
}

void Event::wait() const {}

double Event::seconds_since(const Event& earlier) const {
  return std::chrono::duration<double>(*static_cast<Moment*>(handle_) -
                                       *static_cast<Moment*>(earlier.handle_))
      .count();
}

}  // namespace lh::gpu
