// Comparison of the two worlds. With LH_XPU_DUMP=folder the emulator writes every output to that
// folder and a device compares its own outputs with those files.
#pragma once
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "kernels/support/harness.h"

namespace lh::test {

template <class T>
void write_dump(const std::filesystem::path& file, const std::vector<T>& data) {
  std::filesystem::create_directories(file.parent_path());
  std::ofstream out(file, std::ios::binary);
  out.write(reinterpret_cast<const char*>(data.data()),
            static_cast<std::streamsize>(data.size() * sizeof(T)));
  REQUIRE_MESSAGE(out.good(), "cannot write " << file.string());
}

inline double value_of(float x) { return x; }
inline double value_of(double x) { return x; }
inline double value_of(xpu::bf16 x) { return xpu::to_float(x); }
template <class T>
double value_of(T x) {
  return static_cast<double>(x);
}

/// Empty, or how `data` differs from the file. Equal bits always agree; else |x - y| <= tolerance.
template <class T>
std::string compare_with_dump(const std::filesystem::path& file, const std::vector<T>& data,
                              double tolerance) {
  std::ifstream in(file, std::ios::binary);
  if (!in) return file.string() + " is missing; run the emulator's test with LH_XPU_DUMP first";
  std::vector<T> other(data.size());
  const auto bytes = static_cast<std::streamsize>(data.size() * sizeof(T));
  in.read(reinterpret_cast<char*>(other.data()), bytes);
  if (in.gcount() != bytes || in.get() != EOF) return file.string() + " has another size";
  std::size_t bad = 0, first = 0;
  for (std::size_t i = 0; i < data.size(); ++i) {
    if (std::memcmp(&data[i], &other[i], sizeof(T)) == 0) continue;
    if (std::fabs(value_of(data[i]) - value_of(other[i])) <= tolerance) continue;
    if (bad++ == 0) first = i;
  }
  if (bad == 0) return "";
  return file.string() + ": " + std::to_string(bad) + " of " + std::to_string(data.size()) +
         " differ, first at " + std::to_string(first) + ": device " +
         std::to_string(value_of(data[first])) + ", emulator " +
         std::to_string(value_of(other[first]));
}

/// Every conformance case calls it with each output, under a name of its own.
template <class T>
void compare_worlds(const std::string& name, const std::vector<T>& data, double tolerance = 0) {
  const char* folder = std::getenv("LH_XPU_DUMP");
  if (!folder) return;
  const auto file = std::filesystem::path(folder) / (name + ".bin");
#ifdef __CUDACC__
  const std::string difference = compare_with_dump(file, data, tolerance);
  CHECK_MESSAGE(difference.empty(), difference);
#else
  (void)tolerance;
  write_dump(file, data);
#endif
}

}  // namespace lh::test
