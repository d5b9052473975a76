// Where a tensor lives.
#pragma once

#include <cstdint>
#include <string>

namespace lh {

#ifdef LH_WITH_CUDA
inline constexpr bool kWithCuda = true;
#else
inline constexpr bool kWithCuda = false;
#endif

/// kMeta: tensors have shapes and owners but no memory, and operations on them compute nothing. A
/// training step there shows what a real one would allocate and exchange. Its index says for which
/// backend: the scratch memory is that backend's, the CUDA backend's where the build has it.
enum class DeviceKind : uint8_t { kCpu, kCuda, kMeta };
inline constexpr int kDeviceKinds = 3;

struct Device {
  DeviceKind kind = DeviceKind::kCpu;
  int8_t index = 0;

  bool is_cpu() const { return kind == DeviceKind::kCpu; }
  bool is_meta() const { return kind == DeviceKind::kMeta; }
  /// Where the CPU backend computes, or allocates as if it did.
  bool is_like_cpu() const { return is_cpu() || (is_meta() && index == 1); }
  bool operator==(const Device&) const = default;
  std::string str() const {
    return is_cpu() ? "cpu" : is_meta() ? "meta" : "cuda:" + std::to_string(index);
  }
};

inline constexpr Device kCpuDevice{};
inline constexpr Device kMetaCudaDevice{DeviceKind::kMeta, 0};
inline constexpr Device kMetaCpuDevice{DeviceKind::kMeta, 1};

}  // namespace lh
