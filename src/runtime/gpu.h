// CUDA devices as the engine uses them: one stream that work of a device is ordered on, and one memory arena; and
// another of both beside it, for sums between processes. Only CUDA builds link these functions; they throw Error with
// CUDA's own words.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "runtime/device.h"
#include "runtime/memory.h"

struct CUstream_st;  // what cudaStream_t points to

namespace lh::gpu {

using Stream = CUstream_st*;

/// Usable devices. 0 without a driver or a device, and unavailable_reason() says which.
int device_count();
const std::string& unavailable_reason();

struct DeviceInfo {
  std::string name;
  int capability = 0;  // 90 for compute capability 9.0
  int multiprocessors = 0;
  int64_t memory_bytes = 0;
  int64_t l2_bytes = 0;
  bool emulated = false;  // kernels run on the CPU (kernels/xpu/emu): times say nothing
};
DeviceInfo device_info(Device device);
/// device_info().capability, asked once.
int capability(Device device);

/// For this thread's calls of the CUDA runtime, and of libraries that ask it for the device.
void make_current(Device device);

/// The stream of this thread's kernels and copies on the device: the main one, or within a SideStream the other.
Stream stream(Device device);

/// While it lives, what this thread does on the device goes to its second stream, and what it allocates there lies in an
/// arena of its own, so that no block is handed from one stream to the other. Events order what crosses over. Work
/// there is not recorded.
class SideStream {
 public:
  explicit SideStream(Device device);
  ~SideStream();
  SideStream(const SideStream&) = delete;
  SideStream& operator=(const SideStream&) = delete;
};

inline constexpr size_t kAlignment = 512;  // of every allocation

/// Not initialised, charged to `owner`. A freed block is handed out again at once, which is safe
/// because its next user comes later on the same stream. Throws Error with the table of owners and
/// the largest live blocks when the device is full.
void* allocate(Device device, size_t bytes, MemoryOwner owner);
void release(Device device, void* pointer, size_t bytes, MemoryOwner owner) noexcept;

/// Host to device through pinned memory, in stream order. `host` may be changed on return; waits only
/// when the staging memory is full of unfinished copies.
void copy_in(Device device, void* to, const void* host, size_t bytes);
/// Device to host; waits for all earlier work and for the copy.
void copy_out(Device device, void* host, const void* from, size_t bytes);
void fill_bytes(Device device, void* to, int value, size_t bytes);
void synchronize(Device device);

/// How often the host has waited for the device: copy_out, synchronize, and copies in that found the
/// staging memory full. A training step should add one.
int64_t wait_count(Device device);

/// With LH_CUDA_SYNC=1 every operation is waited for, so that an asynchronous error names it.
bool synchronous();

/// Work recorded once, to be launched again with the same arguments and addresses (a CUDA graph). Its
/// intermediate results lie where they lay when it was recorded, in memory that is free between
/// launches.
class Graph {
 public:
  virtual ~Graph() = default;
  /// Enqueues the work and returns true; false, with nothing done, when something else lives now
  /// where the graph keeps its intermediate results: it must be recorded again.
  virtual bool launch() = 0;
};

/// From construction to finish(), what is enqueued on the device's stream is recorded and not run.
/// Copies to and from the host, and waits, throw Error.
class Capture {
 public:
  explicit Capture(Device device);
  ~Capture();  // without finish(): forgets what was recorded
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;
  std::unique_ptr<Graph> finish();

 private:
  Device device_;
  bool recording_ = true;
};

/// A moment on the stream of the thread that records it.
class Event {
 public:
  explicit Event(Device device);
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  /// Happens when all work given to the stream so far is done.
  void record();
  /// Whether it has happened, or was never recorded. From any thread.
  bool done() const;
  /// What this thread gives to its stream from now on comes after the event; the host does not wait.
  void wait() const;
  /// From the other event to this one, both recorded; waits for this one.
  double seconds_since(const Event& earlier) const;

 private:
  Device device_;
  void* handle_ = nullptr;
};

}  // namespace lh::gpu
