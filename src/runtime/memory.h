// Who owns how many bytes. Every tensor allocation is charged to the owner in scope, so the
// trainer can print a table of weights, gradients, optimizer state and activations.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "runtime/device.h"

namespace lh {

enum class MemoryOwner : uint8_t { kWeights, kGradients, kOptimizer, kActivations, kData, kCache };
inline constexpr int kMemoryOwners = 6;

const char* memory_owner_name(MemoryOwner owner);

/// Charges allocations of this thread to `owner` until the scope ends. Default: activations.
class MemoryScope {
 public:
  explicit MemoryScope(MemoryOwner owner);
  ~MemoryScope();
  MemoryScope(const MemoryScope&) = delete;
  MemoryScope& operator=(const MemoryScope&) = delete;

 private:
  MemoryOwner previous_;
};

MemoryOwner current_memory_owner();

/// Live bytes per owner now, and per owner at the moment the total was highest.
struct MemoryReport {
  std::array<int64_t, kMemoryOwners> now{};
  std::array<int64_t, kMemoryOwners> at_peak{};
  int64_t total_now = 0;
  int64_t total_peak = 0;
  /// Lines "owner  now  at peak" for the log.
  std::string table() const;
};

MemoryReport memory_report(DeviceKind kind = DeviceKind::kCpu);

/// Forgets the peak: it restarts from what is live now.
void reset_memory_peak(DeviceKind kind = DeviceKind::kCpu);

}  // namespace lh
