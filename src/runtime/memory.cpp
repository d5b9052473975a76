#include "runtime/memory.h"

#include <mutex>

#include "base/text.h"
#include "runtime/memory_counters.h"

#include <fmt/format.h>

namespace lh {
namespace {

thread_local MemoryOwner t_owner = MemoryOwner::kActivations;
std::mutex g_mutex;
std::array<MemoryReport, kDeviceKinds> g_reports;  // by DeviceKind

MemoryReport& report_of(DeviceKind kind) {
  return g_reports[static_cast<size_t>(kind)];
}

}  // namespace

const char* memory_owner_name(MemoryOwner owner) {
  static constexpr std::array<const char*, kMemoryOwners> kNames = {
      "weights", "gradients", "optimizer", "activations", "data", "cache"};
  return kNames[static_cast<size_t>(owner)];
}

MemoryScope::MemoryScope(MemoryOwner owner) : previous_(t_owner) {
  t_owner = owner;
}
MemoryScope::~MemoryScope() {
  t_owner = previous_;
}

MemoryOwner current_memory_owner() {
  return t_owner;
}

void count_allocation(DeviceKind kind, MemoryOwner owner, int64_t bytes) {
  const std::lock_guard lock(g_mutex);
  MemoryReport& report = report_of(kind);
  report.now[static_cast<size_t>(owner)] += bytes;
  report.total_now += bytes;
  if (report.total_now > report.total_peak) {
    report.total_peak = report.total_now;
    report.at_peak = report.now;
  }
}

MemoryReport memory_report(DeviceKind kind) {
  const std::lock_guard lock(g_mutex);
  return report_of(kind);
}

void reset_memory_peak(DeviceKind kind) {
  const std::lock_guard lock(g_mutex);
  MemoryReport& report = report_of(kind);
  report.total_peak = report.total_now;
  report.at_peak = report.now;
}

std::string MemoryReport::table() const {
  std::string text = fmt::format("{:<12} {:>12} {:>12}\n", "memory", "now", "at peak");
  for (int i = 0; i < kMemoryOwners; ++i) {
    if (now[i] == 0 && at_peak[i] == 0) continue;
    text += fmt::format("{:<12} {:>12} {:>12}\n", memory_owner_name(static_cast<MemoryOwner>(i)),
                        format_bytes(static_cast<double>(now[i])),
                        format_bytes(static_cast<double>(at_peak[i])));
  }
  text += fmt::format("{:<12} {:>12} {:>12}", "total", format_bytes(static_cast<double>(total_now)),
                      format_bytes(static_cast<double>(total_peak)));
  return text;
}

}  // namespace lh
