// Real devices, through the CUDA runtime. Virtual memory calls belong to the driver; they are looked
// up at run time, so that the program starts on machines without one.
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <mutex>

#include "runtime/cuda_check.h"
#include "runtime/gpu.h"
#include "runtime/gpu_driver.h"

namespace lh::gpu {
namespace {

struct Availability {
  int devices = 0;
  std::string reason;
};

const Availability& availability() {
  static const Availability found = [] {
    Availability result;
    const cudaError_t code = cudaGetDeviceCount(&result.devices);
    if (code != cudaSuccess) {
      result.devices = 0;
      int driver = 0;
      cudaDriverGetVersion(&driver);
      result.reason = driver == 0 ? "no CUDA driver is installed" : cudaGetErrorString(code);
      cudaGetLastError();
    } else if (result.devices == 0) {
      result.reason = "the driver sees no device";
    }
    return result;
  }();
  return found;
}

void use(Device device) {
  check(cudaSetDevice(device.index), "cannot use the device");
}

/// Pinned host memory in slots, through which copies pass so that neither side waits for the other.
class Staging {
 public:
  static constexpr size_t kSlotBytes = size_t{8} << 20;
  static constexpr size_t kSlots = 4;

  Staging() {
    check(cudaHostAlloc(reinterpret_cast<void**>(&memory_), kSlotBytes * kSlots,
                        cudaHostAllocDefault),
          "pinned memory for copies");
    for (cudaEvent_t& event : done_)
      check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "event");
  }

  /// A slot whose earlier copy has finished.
  char* next() {
    slot_ = (slot_ + 1) % kSlots;
    check(cudaEventSynchronize(done_[slot_]), "copy to the device");
    return memory_ + slot_ * kSlotBytes;
  }
  void in_flight(cudaStream_t stream) { check(cudaEventRecord(done_[slot_], stream), "event"); }

 private:
  char* memory_ = nullptr;
  std::array<cudaEvent_t, kSlots> done_{};
  size_t slot_ = 0;
};

struct State {
  cudaStream_t stream = nullptr;
  std::mutex staging_mutex;
  std::unique_ptr<Staging> staging;
};

State& state(Device device) {
  static std::mutex mutex;
  static auto* states = new std::array<std::unique_ptr<State>, 128>;  // outlive static tensors
  const std::lock_guard lock(mutex);
  std::unique_ptr<State>& found = (*states)[static_cast<size_t>(device.index)];
  if (found == nullptr) {
    use(device);
    auto made = std::make_unique<State>();
    check(cudaStreamCreateWithFlags(&made->stream, cudaStreamNonBlocking), "stream");
    made->staging = std::make_unique<Staging>();
    found = std::move(made);
  }
  return *found;
}

template <typename Function>
Function driver_function(const char* name) {
  void* symbol = nullptr;
  cudaDriverEntryPointQueryResult found{};
  check(cudaGetDriverEntryPointByVersion(name, &symbol, 12000, cudaEnableDefault, &found), name);
  if (symbol == nullptr || found != cudaDriverEntryPointSuccess)
    fail("[cuda] the driver has no {}: update it", name);
  return reinterpret_cast<Function>(symbol);
}

struct VirtualMemory {
  decltype(&cuMemAddressReserve) reserve =
      driver_function<decltype(&cuMemAddressReserve)>("cuMemAddressReserve");
  decltype(&cuMemCreate) create = driver_function<decltype(&cuMemCreate)>("cuMemCreate");
  decltype(&cuMemRelease) release = driver_function<decltype(&cuMemRelease)>("cuMemRelease");
  decltype(&cuMemMap) map = driver_function<decltype(&cuMemMap)>("cuMemMap");
  decltype(&cuMemSetAccess) set_access =
      driver_function<decltype(&cuMemSetAccess)>("cuMemSetAccess");
};

const VirtualMemory& virtual_memory() {
  static const VirtualMemory functions;
  return functions;
}

CUmemAllocationProp on_device(Device device) {
  CUmemAllocationProp properties{};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  properties.location.id = device.index;
  return properties;
}

constexpr size_t kGranule = size_t{2} << 20;  // of device memory on every supported device
constexpr size_t kGrowth = size_t{64} << 20;  // fewer, larger mappings

}  // namespace

int device_count() {
  return availability().devices;
}

const std::string& unavailable_reason() {
  return availability().reason;
}

DeviceInfo device_info(Device device) {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, device.index), "device properties");
  return {.name = properties.name,
          .capability = properties.major * 10 + properties.minor,
          .multiprocessors = properties.multiProcessorCount,
          .memory_bytes = static_cast<int64_t>(properties.totalGlobalMem),
          .l2_bytes = properties.l2CacheSize};
}

Stream stream(Device device) {
  return state(device).stream;
}

AddressRange reserve_addresses(Device device) {
  use(device);
  // Twice the memory: best fit may leave holes below the end.
  const size_t bytes =
      (static_cast<size_t>(device_info(device).memory_bytes) * 2 + kGranule - 1) / kGranule *
      kGranule;
  CUdeviceptr base = 0;
  if (virtual_memory().reserve(&base, bytes, kGranule, 0, 0) != CUDA_SUCCESS)
    fail("[cuda] cannot reserve addresses on {}", device.str());
  return {reinterpret_cast<char*>(base), bytes};
}

size_t commit(Device device, const AddressRange& range, size_t committed, size_t end) {
  use(device);
  const size_t wanted = (end - committed + kGranule - 1) / kGranule * kGranule;
  for (size_t bytes : {std::min(std::max(wanted, kGrowth), range.bytes - committed), wanted}) {
    const CUmemAllocationProp properties = on_device(device);
    CUmemGenericAllocationHandle memory = 0;
    if (virtual_memory().create(&memory, bytes, &properties, 0) != CUDA_SUCCESS) continue;
    const CUdeviceptr at = reinterpret_cast<CUdeviceptr>(range.base) + committed;
    CUmemAccessDesc access{};
    access.location = properties.location;
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    const bool mapped = virtual_memory().map(at, bytes, 0, memory, 0) == CUDA_SUCCESS &&
                        virtual_memory().set_access(at, bytes, &access, 1) == CUDA_SUCCESS;
    virtual_memory().release(memory);  // the mapping keeps it
    if (!mapped) fail("[cuda] cannot map memory on {}", device.str());
    return committed + bytes;
  }
  return committed;
}

void copy_in(Device device, void* to, const void* host, size_t bytes) {
  State& s = state(device);
  const std::lock_guard lock(s.staging_mutex);
  for (size_t at = 0; at < bytes; at += Staging::kSlotBytes) {
    const size_t count = std::min(Staging::kSlotBytes, bytes - at);
    char* slot = s.staging->next();
    std::memcpy(slot, static_cast<const char*>(host) + at, count);
    check(cudaMemcpyAsync(static_cast<char*>(to) + at, slot, count, cudaMemcpyHostToDevice,
                          s.stream),
          "copy to the device");
    s.staging->in_flight(s.stream);
  }
}

void copy_out(Device device, void* host, const void* from, size_t bytes) {
  State& s = state(device);
  const std::lock_guard lock(s.staging_mutex);
  for (size_t at = 0; at < bytes; at += Staging::kSlotBytes) {
    const size_t count = std::min(Staging::kSlotBytes, bytes - at);
    char* slot = s.staging->next();
    check(cudaMemcpyAsync(slot, static_cast<const char*>(from) + at, count, cudaMemcpyDeviceToHost,
                          s.stream),
          "copy from the device");
    check(cudaStreamSynchronize(s.stream), "waiting for the device");
    std::memcpy(static_cast<char*>(host) + at, slot, count);
  }
}

void fill_bytes(Device device, void* to, int value, size_t bytes) {
  if (bytes == 0) return;
  check(cudaMemsetAsync(to, value, bytes, state(device).stream), "fill");
}

void synchronize(Device device) {
  check(cudaStreamSynchronize(state(device).stream), "waiting for the device");
}

Event::Event(Device device) : device_(device) {
  use(device);
  cudaEvent_t event = nullptr;
  check(cudaEventCreate(&event), "event");
  handle_ = event;
}

Event::~Event() {
  cudaEventDestroy(static_cast<cudaEvent_t>(handle_));
}

void Event::record() {
  check(cudaEventRecord(static_cast<cudaEvent_t>(handle_), state(device_).stream), "event");
}

double Event::seconds_since(const Event& earlier) const {
  const auto end = static_cast<cudaEvent_t>(handle_);
  check(cudaEventSynchronize(end), "waiting for the device");
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, static_cast<cudaEvent_t>(earlier.handle_), end),
        "time between events");
  return milliseconds * 1e-3;
}

}  // namespace lh::gpu
