// Kernels in backend/cpu/simd/*.cpp are compiled once per instruction-set level, each time into
// another namespace; LH_SIMD_CALL picks one at run time. Such files take raw pointers, include
// only <cstdint>-class headers and keep helpers in an anonymous namespace, so that no inline
// function compiled for a wide level can be linked into code that runs on a narrow machine.
#pragma once

#include "runtime/cpu_info.h"

#if defined(__x86_64__)
#define LH_SIMD_LEVELS 1
/// Declares functions in every level's namespace.
#define LH_SIMD_DECLARE(...)                          \
  namespace lh::cpu::simd_generic { __VA_ARGS__ }     \
  namespace lh::cpu::simd_avx2 { __VA_ARGS__ }        \
  namespace lh::cpu::simd_avx512 { __VA_ARGS__ }
#define LH_SIMD_CALL(call)                                                             \
  (::lh::cpu_info().simd == ::lh::SimdLevel::kAvx512 ? ::lh::cpu::simd_avx512::call    \
   : ::lh::cpu_info().simd == ::lh::SimdLevel::kAvx2 ? ::lh::cpu::simd_avx2::call      \
                                                     : ::lh::cpu::simd_generic::call)
#else
#define LH_SIMD_DECLARE(...) namespace lh::cpu::simd_generic { __VA_ARGS__ }
#define LH_SIMD_CALL(call) (::lh::cpu::simd_generic::call)
#endif
