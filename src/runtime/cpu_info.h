// What this machine's processor and memory offer, found at run time.
#pragma once

#include <cstdint>
#include <string>

namespace lh {

/// Instruction-set levels that kernels in backend/cpu/simd are compiled for, ascending.
enum class SimdLevel : uint8_t { kGeneric, kAvx2, kAvx512 };

struct CpuInfo {
  std::string model;
  int logical_cores = 1;  // usable by this process (affinity and cgroup quota respected)
  int64_t memory_bytes = 0;  // physical, or the cgroup limit where that is smaller
  bool avx2 = false, fma = false, f16c = false;
  bool avx512 = false;       // F, BW, DQ, VL
  bool avx512_bf16 = false;
  bool amx_bf16 = false;     // present and the kernel lets this process use the tiles
  SimdLevel simd = SimdLevel::kGeneric;  // lowered by LH_SIMD=generic|avx2|avx512
};

/// Detected once. LH_SIMD lowers the level (and below avx512 hides bf16 and AMX); LH_NO_AMX=1
/// hides AMX: both for tests.
const CpuInfo& cpu_info();

const char* simd_level_name(SimdLevel level);

}  // namespace lh
