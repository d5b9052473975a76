#include "runtime/memory.h"

#include <mutex>

#include "base/text.h"
#include "runtime/memory_counters.h"

#include <fmt/format.h>

namespace lh {
namespace {

thread_local MemoryOwner t_owner = MemoryOwner::kActivations;
std::mutex g_mutex;
MemoryReport g_report;

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

void count_allocation(MemoryOwner owner, int64_t bytes) {
  const std::lock_guard lock(g_mutex);
  g_report.now[static_cast<size_t>(owner)] += bytes;
  g_report.total_now += bytes;
  if (g_report.total_now > g_report.total_peak) {
    g_report.total_peak = g_report.total_now;
    g_report.at_peak = g_report.now;
  }
}

MemoryReport memory_report() {
  const std::lock_guard lock(g_mutex);
  return g_report;
}

void reset_memory_peak() {
  const std::lock_guard lock(g_mutex);
  g_report.total_peak = g_report.total_now;
  g_report.at_peak = g_report.now;
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
