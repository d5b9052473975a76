#include "runtime/cpu_info.h"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <string_view>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace lh {
namespace {

std::string model_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("model name", 0) != 0) continue;
    const size_t colon = line.find(": ");
    if (colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown processor";
}

int usable_cores() {
  int cores = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) cores = std::min(cores, CPU_COUNT(&set));
  std::ifstream quota_file("/sys/fs/cgroup/cpu.max");  // "<quota> <period>" or "max <period>"
  double quota = 0, period = 0;
  if (quota_file >> quota >> period && quota > 0 && period > 0)
    cores = std::min(cores, static_cast<int>(std::ceil(quota / period)));
  return std::max(cores, 1);
}

int64_t memory_limit() {
  int64_t bytes = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  std::ifstream limit_file("/sys/fs/cgroup/memory.max");
  int64_t limit = 0;
  if (limit_file >> limit && limit > 0) bytes = std::min(bytes, limit);
  return bytes;
}

#if defined(__x86_64__)
/// Linux hands out the AMX tile state only to processes that ask (arch_prctl, since 5.16).
bool request_amx() {
  constexpr long kReqXcompPerm = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kReqXcompPerm, kTileData) == 0;
}

void detect_features(CpuInfo& info) {
  __builtin_cpu_init();
  info.avx2 = __builtin_cpu_supports("avx2");
  info.fma = __builtin_cpu_supports("fma");
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d)) info.f16c = (c >> 29 & 1) != 0;
  info.avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (info.avx512 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) info.avx512_bf16 = (a >> 5 & 1) != 0;
  if (info.avx512_bf16 && __get_cpuid_count(7, 0, &a, &b, &c, &d)) {
    const bool tiles = (d >> 22 & 1) != 0 && (d >> 24 & 1) != 0;  // AMX-BF16, AMX-TILE
    info.amx_bf16 = tiles && std::getenv("LH_NO_AMX") == nullptr && request_amx();
  }
}
#else
void detect_features(CpuInfo&) {}
#endif

CpuInfo detect() {
  CpuInfo info;
  info.model = model_name();
  info.logical_cores = usable_cores();
  info.memory_bytes = memory_limit();
  detect_features(info);
  if (info.avx2 && info.fma) info.simd = SimdLevel::kAvx2;
  if (info.avx512 && info.fma) info.simd = SimdLevel::kAvx512;
  if (const char* wanted = std::getenv("LH_SIMD")) {
    const std::string_view name = wanted;
    if (name == "generic") info.simd = SimdLevel::kGeneric;
    if (name == "avx2") info.simd = std::min(info.simd, SimdLevel::kAvx2);
    if (info.simd < SimdLevel::kAvx512) info.avx512_bf16 = info.amx_bf16 = false;
  }
  return info;
}

}  // namespace

const CpuInfo& cpu_info() {
  static const CpuInfo info = detect();
  return info;
}

const char* simd_level_name(SimdLevel level) {
  switch (level) {
    case SimdLevel::kGeneric: return "generic";
    case SimdLevel::kAvx2: return "avx2";
    case SimdLevel::kAvx512: return "avx512";
  }
  return "unknown";
}

}  // namespace lh
