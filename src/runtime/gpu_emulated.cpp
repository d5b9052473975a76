// A device for tests on machines without one: kernels run in the emulator (kernels/xpu/emu), device
// memory is host memory, and every call is finished when it returns.
#include <sys/mman.h>

#include <atomic>
#include <cstring>

#include "base/error.h"
#include "runtime/gpu.h"
#include "runtime/gpu_driver.h"

namespace lh::gpu {
namespace {

constexpr int64_t kMemoryBytes = int64_t{4} << 30;
std::atomic<int64_t> waits{0};

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
          .memory_bytes = kMemoryBytes};
}

Stream stream(Device) {
  return nullptr;
}

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
  std::memcpy(to, host, bytes);
}

void copy_out(Device, void* host, const void* from, size_t bytes) {
  ++waits;
  std::memcpy(host, from, bytes);
}

void fill_bytes(Device, void* to, int value, size_t bytes) {
  std::memset(to, value, bytes);
}

void synchronize(Device) {
  ++waits;
}

int64_t wait_count(Device) {
  return waits;
}

}  // namespace lh::gpu
