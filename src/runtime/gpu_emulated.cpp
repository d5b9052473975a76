// A device for tests on machines without one: kernels run in the emulator (kernels/xpu/emu), device
// memory is host memory, and every call is finished when it returns. It counts as one, but devices of any index up to
// kDevices may be used, for ranks that are threads.
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
constexpr size_t kDevices = 8;
std::atomic<int64_t> waits{0};

CUstream_st& own_stream(Device device) {
  static std::array<std::array<CUstream_st, kLanes>, kDevices> streams;
  return streams.at(static_cast<size_t>(device.index))[static_cast<size_t>(lane())];
}

void refuse_in_recording(Device device, const char* what) {
  if (own_stream(device).recording != nullptr) fail("[cuda] {} cannot be recorded", what);
}

using Work = std::vector<std::function<void()>>;

class WorkList final : public Recording {
 public:
  WorkList(const CUstream_st& stream, Work work) : stream_(stream), work_(std::move(work)) {}
  void replay() override {
    xpu::emu::finish(stream_);
    for (const auto& run : work_) run();
  }

 private:
  const CUstream_st& stream_;
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

Stream stream(Device device) {
  return &own_stream(device);
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

void copy_in(Device device, void* to, const void* host, size_t bytes) {
  refuse_in_recording(device, "a copy to the device");
  xpu::emu::finish(own_stream(device));
  std::memcpy(to, host, bytes);
}

void copy_out(Device device, void* host, const void* from, size_t bytes) {
  refuse_in_recording(device, "a copy from the device");
  ++waits;
  xpu::emu::finish(own_stream(device));
  std::memcpy(host, from, bytes);
}

void fill_bytes(Device device, void* to, int value, size_t bytes) {
  xpu::emu::enqueue(&own_stream(device), [=] { std::memset(to, value, bytes); });
}

void synchronize(Device device) {
  refuse_in_recording(device, "waiting for the device");
  ++waits;
  xpu::emu::finish(own_stream(device));
}

void start_recording(Device device) {
  refuse_in_recording(device, "a recording");
  own_stream(device).recording = new Work;
}

std::unique_ptr<Recording> stop_recording(Device device) {
  const std::unique_ptr<Work> work(std::exchange(own_stream(device).recording, nullptr));
  return std::make_unique<WorkList>(own_stream(device), std::move(*work));
}

int64_t wait_count(Device) {
  return waits;
}

// The emulator's work is done when its call returns, so an event is the time of its recording.
struct Moment {
  std::chrono::steady_clock::time_point time;
  const CUstream_st* stream = nullptr;
};

Event::Event(Device device) : device_(device), handle_(new Moment) {}

Event::~Event() {
  delete static_cast<Moment*>(handle_);
}

void Event::record() {
  *static_cast<Moment*>(handle_) = {std::chrono::steady_clock::now(), &own_stream(device_)};
}

bool Event::done() const {
  const CUstream_st* stream = static_cast<const Moment*>(handle_)->stream;
  return stream == nullptr || stream->outside == 0;
}

void Event::wait() const {
  if (const CUstream_st* stream = static_cast<const Moment*>(handle_)->stream) xpu::emu::finish(*stream);
}

double Event::seconds_since(const Event& earlier) const {
  return std::chrono::duration<double>(static_cast<Moment*>(handle_)->time -
                                       static_cast<Moment*>(earlier.handle_)->time)
      .count();
}

}  // namespace lh::gpu
