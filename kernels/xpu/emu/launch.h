// Emulator: launching, shared memory, "device" buffers. A launch runs to its end before it
// returns, one block after another, and throws xpu::Error when a rule is broken.
#pragma once
#include <cmath>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>

#include "kernels/xpu/emu/stream.h"
#include "kernels/xpu/emu/where.h"
#include "kernels/xpu/limits.h"
#include "kernels/xpu/types.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define XPU_GRID_CONSTANT
#define XPU_SHARED(T, name, dims)                                                             \
  static char name##_key_;                                                                    \
  using name##_type_ = T dims;                                                                \
  name##_type_& name = *static_cast<name##_type_*>(                                           \
      ::xpu::emu::static_shared(&name##_key_, #name, sizeof(name##_type_),                    \
                                alignof(name##_type_) < 16 ? 16 : alignof(name##_type_)))
#define XPU_DYN_SHARED(T, name) T* name = reinterpret_cast<T*>(::xpu::emu::dynamic_shared())

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
extern uint3 threadIdx, blockIdx;  // rewritten whenever another thread runs
extern dim3 blockDim, gridDim;

namespace xpu {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct LaunchConfig {
  dim3 grid;
  dim3 block;
  std::size_t shared_bytes = 0;
  Stream stream = nullptr;
};

namespace emu {

enum class Order { kSequential, kReverse, kRandom };  // of blocks and threads
enum class Async { kEarly, kLate, kRandom };          // when asynchronous effects happen

/// How the next launches run; a test tries several.
struct Mode {
  Order order = Order::kSequential;
  Async async = Async::kEarly;
  std::uint64_t seed = 1;
};
void set_mode(const Mode& mode);

/// Counts since the last reset_counters().
struct Counters {
  long switches = 0;             // of emulated threads
  long matrix_loads = 0;         // 8-row phases of ldmatrix
  long bank_conflicts = 0;       // extra cycles those phases take
};
Counters counters();
void reset_counters();

/// Turns the race detector on; kernels must have been compiled with -fsanitize=thread.
void enable_race_detector();

void* static_shared(const void* key, const char* name, std::size_t bytes, std::size_t alignment);
void* dynamic_shared();
void run_grid(std::string_view name, const LaunchConfig& config, void (*body)(const void*),
              const void* args);

/// One launch with its arguments.
template <auto kKernel, class... Params>
struct Launch {
  std::string_view name;
  LaunchConfig config;
  std::tuple<Params...> params;

  void operator()() const {
    run_grid(
        name, config,
        [](const void* self) { std::apply(kKernel, static_cast<const Launch*>(self)->params); },
        this);
  }
};

template <auto kKernel, class... Params, class... Args>
void launch_converted(void (*)(Params...), std::string_view name, const LaunchConfig& config,
                      Args&&... args) {
  enqueue(config.stream,
          Launch<kKernel, Params...>{name, config,
                                     std::tuple<Params...>(static_cast<Params>(args)...)});
}

}  // namespace emu

template <auto kKernel, class... Args>
void launch(const LaunchConfig& config, Args&&... args) {
  emu::launch_converted<kKernel>(kKernel, kernel_name(__PRETTY_FUNCTION__), config,
                                 static_cast<Args&&>(args)...);
}

/// Exactly `bytes` on the heap, so that the address sanitizer sees the first byte outside.
void* device_alloc(std::size_t bytes);
void device_free(void* p);
void copy_in(void* device, const void* host, std::size_t bytes);
void copy_out(void* host, const void* device, std::size_t bytes);

}  // namespace xpu
