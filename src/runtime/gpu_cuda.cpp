// Real devices, through the CUDA runtime. Virtual memory calls belong to the driver; they are looked
// up at run time, so that the program starts on machines without one.
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

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

/// Pinned host memory used as a ring, through which copies pass so that neither side waits for the
/// other: the many small copies of a step (batches, work items) take little of it.
class Staging {
 public:
  static constexpr size_t kBytes = size_t{64} << 20;
  static constexpr size_t kLargestPiece = kBytes / 8;

  Staging() {
    check(cudaHostAlloc(reinterpret_cast<void**>(&memory_), kBytes, cudaHostAllocDefault),
          "pinned memory for copies");
  }

  /// Room for at most kLargestPiece bytes; true in `waited` when unfinished copies stood in the way.
  char* reserve(size_t bytes, bool& waited) {
    bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    if (next_ + bytes > kBytes) {
      // What the last round left beyond this point is older than everything in front.
      while (!pieces_.empty() && pieces_.front().begin >= next_) drop_oldest(waited);
      next_ = 0;
    }
    const size_t begin = next_;
    next_ += bytes;
    while (!pieces_.empty() && pieces_.front().begin < next_ && pieces_.front().end > begin)
      drop_oldest(waited);
    reserved_ = {begin, next_, nullptr};
    return memory_ + begin;
  }

  /// The copy that uses the last reserved piece is in the stream.
  void in_flight(cudaStream_t stream) {
    if (spare_.empty()) {
      spare_.emplace_back();
      check(cudaEventCreateWithFlags(&spare_.back(), cudaEventDisableTiming), "event");
    }
    reserved_.done = spare_.back();
    spare_.pop_back();
    check(cudaEventRecord(reserved_.done, stream), "event");
    pieces_.push_back(reserved_);
  }

 private:
  struct Piece {
    size_t begin, end;
    cudaEvent_t done;
  };

  void drop_oldest(bool& waited) {
    const Piece piece = pieces_.front();
    if (cudaEventQuery(piece.done) == cudaErrorNotReady) {
      cudaGetLastError();  // "not ready" is kept as the last error, which launches look at
      waited = true;
      check(cudaEventSynchronize(piece.done), "copy to the device");
    }
    pieces_.pop_front();
    spare_.push_back(piece.done);
  }

  char* memory_ = nullptr;
  size_t next_ = 0;
  Piece reserved_{};
  std::deque<Piece> pieces_;  // oldest first
  std::vector<cudaEvent_t> spare_;
};

struct State {
  std::array<cudaStream_t, kLanes> streams{};
  std::mutex staging_mutex;
  std::unique_ptr<Staging> staging;
  std::atomic<int64_t> waits{0};
  std::atomic<bool> recording{false};

  cudaStream_t own_stream() const { return streams[static_cast<size_t>(lane())]; }
};

State& state(Device device) {
  static std::mutex mutex;
  static auto* states = new std::array<std::unique_ptr<State>, 128>;  // outlive static tensors
  const std::lock_guard lock(mutex);
  std::unique_ptr<State>& found = (*states)[static_cast<size_t>(device.index)];
  if (found == nullptr) {
    use(device);
    auto made = std::make_unique<State>();
    for (cudaStream_t& stream : made->streams)
      check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
    made->staging = std::make_unique<Staging>();
    found = std::move(made);
  }
  return *found;
}

void refuse_in_recording(const State& s, const char* what) {
  if (s.recording) fail("[cuda] {} cannot be recorded", what);
}

class ExecutableGraph final : public Recording {
 public:
  ExecutableGraph(cudaStream_t stream, cudaGraph_t graph) : stream_(stream) {
    const cudaError_t code = cudaGraphInstantiate(&executable_, graph, 0);
    cudaGraphDestroy(graph);
    check(code, "making a graph ready to run");
  }
  ~ExecutableGraph() override {
    if (executable_ != nullptr) cudaGraphExecDestroy(executable_);  // waits for no launch
  }
  ExecutableGraph(const ExecutableGraph&) = delete;
  ExecutableGraph& operator=(const ExecutableGraph&) = delete;

  void replay() override { check(cudaGraphLaunch(executable_, stream_), "launch of a graph"); }

 private:
  cudaStream_t stream_;
  cudaGraphExec_t executable_ = nullptr;
};

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
  return state(device).own_stream();
}

void make_current(Device device) {
  use(device);
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
  refuse_in_recording(s, "a copy to the device");
  const std::lock_guard lock(s.staging_mutex);
  for (size_t at = 0; at < bytes; at += Staging::kLargestPiece) {
    const size_t count = std::min(Staging::kLargestPiece, bytes - at);
    bool waited = false;
    char* piece = s.staging->reserve(count, waited);
    s.waits += waited ? 1 : 0;
    std::memcpy(piece, static_cast<const char*>(host) + at, count);
    check(cudaMemcpyAsync(static_cast<char*>(to) + at, piece, count, cudaMemcpyHostToDevice,
                          s.own_stream()),
          "copy to the device");
    s.staging->in_flight(s.own_stream());
  }
}

void copy_out(Device device, void* host, const void* from, size_t bytes) {
  State& s = state(device);
  refuse_in_recording(s, "a copy from the device");
  const std::lock_guard lock(s.staging_mutex);
  ++s.waits;
  for (size_t at = 0; at < bytes; at += Staging::kLargestPiece) {
    const size_t count = std::min(Staging::kLargestPiece, bytes - at);
    bool waited = false;
    char* piece = s.staging->reserve(count, waited);
    check(cudaMemcpyAsync(piece, static_cast<const char*>(from) + at, count,
                          cudaMemcpyDeviceToHost, s.own_stream()),
          "copy from the device");
    s.staging->in_flight(s.own_stream());
    check(cudaStreamSynchronize(s.own_stream()), "waiting for the device");
    std::memcpy(static_cast<char*>(host) + at, piece, count);
  }
}

void fill_bytes(Device device, void* to, int value, size_t bytes) {
  if (bytes == 0) return;
  check(cudaMemsetAsync(to, value, bytes, state(device).own_stream()), "fill");
}

void synchronize(Device device) {
  refuse_in_recording(state(device), "waiting for the device");
  ++state(device).waits;
  check(cudaStreamSynchronize(state(device).own_stream()), "waiting for the device");
}

void start_recording(Device device) {
  use(device);
  State& s = state(device);
  refuse_in_recording(s, "a recording");
  check(cudaStreamBeginCapture(s.own_stream(), cudaStreamCaptureModeThreadLocal), "begin of a recording");
  s.recording = true;
}

std::unique_ptr<Recording> stop_recording(Device device) {
  State& s = state(device);
  s.recording = false;
  cudaGraph_t graph = nullptr;
  check(cudaStreamEndCapture(s.own_stream(), &graph), "end of a recording");
  return std::make_unique<ExecutableGraph>(s.own_stream(), graph);
}

int64_t wait_count(Device device) {
  return state(device).waits;
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
  check(cudaEventRecord(static_cast<cudaEvent_t>(handle_), state(device_).own_stream()), "event");
}

void Event::wait() const {
  check(cudaStreamWaitEvent(state(device_).own_stream(), static_cast<cudaEvent_t>(handle_), 0), "order of streams");
}

bool Event::done() const {
  const cudaError_t state = cudaEventQuery(static_cast<cudaEvent_t>(handle_));
  if (state == cudaErrorNotReady) {
    cudaGetLastError();  // "not ready" is kept as the last error, which launches look at
    return false;
  }
  check(state, "event");
  return true;
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
