// Turns codes of the CUDA runtime into errors. Only files that a CUDA build compiles include this.
#pragma once

#include <cuda_runtime_api.h>

#include "base/error.h"

namespace lh::gpu {

/// Throws Error "[cuda] <what>: <CUDA's own words>".
inline void check(cudaError_t code, const char* what) {
  if (code == cudaSuccess) return;
  cudaGetLastError();  // clears it, so that later calls do not report this one again
  fail("[cuda] {}: {}{}", what, cudaGetErrorString(code),
       code == cudaErrorIllegalAddress || code == cudaErrorLaunchFailure ||
               code == cudaErrorMisalignedAddress || code == cudaErrorIllegalInstruction
           ? "\nRun again with LH_CUDA_SYNC=1: every operation is then waited for, and the error "
             "names the one that failed"
           : "");
}

}  // namespace lh::gpu
