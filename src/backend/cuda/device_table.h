// A host array of kernel operands as the device reads it, uploaded again only when it changes: the
// lists of an optimizer stay the same from step to step.
#pragma once

#include <memory>
#include <vector>

#include "backend/backend_state.h"
#include "backend/cuda/kernel_call.h"

namespace lh::cuda {

template <typename Entry>
struct DeviceTable : BackendState {
  std::vector<Entry> entries;
  Tensor copy;
};

/// Device address of `entries`, kept in `state` (which serves one type of entries). nullptr when
/// there are none.
template <typename Entry>
const Entry* device_table(std::shared_ptr<BackendState>& state, const std::vector<Entry>& entries,
                          Device device) {
  if (entries.empty()) return nullptr;
  if (state == nullptr) state = std::make_shared<DeviceTable<Entry>>();
  auto& table = static_cast<DeviceTable<Entry>&>(*state);
  if (!table.copy.defined() || table.entries != entries) {
    table.copy = device_copy(entries.data(), entries.size(), device);
    table.entries = entries;
  }
  return reinterpret_cast<const Entry*>(table.copy.raw());
}

}  // namespace lh::cuda
