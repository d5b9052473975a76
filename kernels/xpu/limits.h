// What a launch may ask for, refused with the same words on a device and in the emulator.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>

namespace xpu {

constexpr std::size_t kMaxSharedBytes = 227 * 1024;  // of one block on sm_90, static and dynamic

/// Empty, or what no GPU runs. Dim is dim3.
template <class Dim>
std::string launch_problem(const Dim& grid, const Dim& block, std::size_t shared_bytes) {
  const auto triple = [](const Dim& d) {
    return "(" + std::to_string(d.x) + ", " + std::to_string(d.y) + ", " + std::to_string(d.z) +
           ")";
  };
  if (grid.x < 1 || grid.y < 1 || grid.z < 1 || grid.x > 0x7fffffffu || grid.y > 65535 ||
      grid.z > 65535) {
    return "expected a grid from (1, 1, 1) to (2147483647, 65535, 65535), got " + triple(grid);
  }
  if (block.x < 1 || block.y < 1 || block.z < 1 || block.x > 1024 || block.y > 1024 ||
      block.z > 64 || static_cast<std::size_t>(block.x) * block.y * block.z > 1024) {
    return "expected a block of 1 to 1024 threads, at most 64 of them along z, got " +
           triple(block);
  }
  if (shared_bytes > kMaxSharedBytes) {
    return "expected at most " + std::to_string(kMaxSharedBytes) +
           " bytes of dynamic shared memory, got " + std::to_string(shared_bytes);
  }
  return "";
}

/// From __PRETTY_FUNCTION__ of a template with a parameter kKernel:
/// "... [with auto kKernel = rms_norm_kernel<float>; Args = ..." names the kernel.
inline std::string_view kernel_name(std::string_view pretty) {
  const auto start = pretty.find("kKernel = ");
  if (start == std::string_view::npos) return pretty;
  pretty.remove_prefix(start + 10);
  return pretty.substr(0, pretty.find_first_of(";]"));
}

}  // namespace xpu
