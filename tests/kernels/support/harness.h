// For kernel tests: buffers of exact size, random data, the modes of the build, comparison with an
// fp64 reference. The same test compiles for the emulator and, with nvcc, for a GPU.
#pragma once
#include <doctest/doctest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "kernels/support/build.h"
#include "kernels/xpu/xpu.h"

namespace lh::test {

/// Device memory holding exactly `size` elements, NaN until written. `offset` elements are skipped
/// at its front, to make a pointer that is not 16-byte aligned.
template <class T>
class Buffer {
 public:
  explicit Buffer(std::size_t size, std::size_t offset = 0) : size_(size), offset_(offset) {
    raw_ = xpu::device_alloc((size + offset) * sizeof(T));
    const std::vector<unsigned char> nan(size * sizeof(T), 0xff);
    xpu::copy_in(get(), nan.data(), nan.size());
  }
  explicit Buffer(const std::vector<T>& host, std::size_t offset = 0)
      : Buffer(host.size(), offset) {
    xpu::copy_in(get(), host.data(), size_ * sizeof(T));
  }
  ~Buffer() { xpu::device_free(raw_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* get() const { return static_cast<T*>(raw_) + offset_; }

  std::vector<T> host() const {
    std::vector<T> out(size_);
    xpu::copy_out(out.data(), get(), size_ * sizeof(T));
    return out;
  }

 private:
  std::size_t size_, offset_;
  void* raw_;
};

template <class T>
std::vector<T> random_values(std::size_t n, unsigned seed, float scale = 1.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<T> out(n);
  for (T& x : out) x = xpu::from_float<T>(normal(random));
  return out;
}

template <class T>
std::vector<double> to_double(const std::vector<T>& x) {
  std::vector<double> out(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) out[i] = xpu::to_float(x[i]);
  return out;
}

/// |got - want| <= absolute + relative |want| everywhere; reports the first and the worst failure.
template <class T>
void check_close(const std::vector<T>& got, const std::vector<double>& want, double relative,
                 double absolute, const std::string& what) {
  REQUIRE(got.size() == want.size());
  std::size_t bad = 0, first = 0;
  double worst = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double x = xpu::to_float(got[i]);
    const double error = std::fabs(x - want[i]);
    if (!(error <= absolute + relative * std::fabs(want[i]))) {
      if (bad++ == 0) first = i;
      if (!(error <= worst)) worst = error;
    }
  }
  const double shown = bad ? xpu::to_float(got[first]) : 0.0;
  CHECK_MESSAGE(bad == 0, what << ": " << bad << " of " << got.size() << " differ, first at "
                               << first << ": got " << shown << ", want "
                               << (bad ? want[first] : 0.0) << "; worst error " << worst);
}

/// Half a unit in the last place of T, with room for one more rounding of an intermediate.
template <class T>
constexpr double kRounding = sizeof(T) == 2 ? 0.004 : 1e-6;

/// Runs the body once per mode of this build, or for slow bodies in the two that find most; on a
/// device once.
template <class Body>
void for_each_mode(const Body& body, bool slow = false) {
#ifdef __CUDACC__
  body();
  (void)slow;
#else
  using xpu::emu::Async;
  using xpu::emu::Order;
  const std::string build = kernel_build();
  std::vector<xpu::emu::Mode> modes = {{Order::kSequential, Async::kLate, 1}};
  if (build == "plain") {
    modes = {{Order::kSequential, Async::kEarly, 1}, {Order::kSequential, Async::kLate, 1},
             {Order::kReverse, Async::kEarly, 1},    {Order::kReverse, Async::kLate, 1},
             {Order::kRandom, Async::kRandom, 1},    {Order::kRandom, Async::kRandom, 2},
             {Order::kRandom, Async::kRandom, 3}};
  }
  if (build == "plain" && slow) {
    modes = {{Order::kReverse, Async::kLate, 1}, {Order::kRandom, Async::kRandom, 1}};
  }
  if (build == "race") xpu::emu::enable_race_detector();
  for (const auto& mode : modes) {
    CAPTURE(static_cast<int>(mode.order));
    CAPTURE(static_cast<int>(mode.async));
    xpu::emu::set_mode(mode);
    body();
  }
  xpu::emu::set_mode({});
#endif
}

/// False on a device that lacks Hopper's instructions; says so.
inline bool has_sm90() {
#ifdef __CUDACC__
  int device = 0, major = 0;
  xpu::check(cudaGetDevice(&device), "cudaGetDevice");
  xpu::check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
             "compute capability");
  if (major != 9) {
    MESSAGE("SKIPPED: the instructions of sm_90a exist on compute capability 9 only, this is "
            << major);
    return false;
  }
#endif
  return true;
}

}  // namespace lh::test
