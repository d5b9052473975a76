// One statement sends a call to the backend of a device.
#pragma once

#include "base/error.h"
#include "runtime/device.h"

/// Declares functions in lh::cpu and lh::cuda at once, so that the two signatures cannot drift.
#define LH_BACKENDS(...)                   \
  namespace lh::cpu { __VA_ARGS__ }        \
  namespace lh::cuda { __VA_ARGS__ }

/// LH_DISPATCH(x.device(), "rms_norm", rms_norm_forward(x, ...)). The cuda branch is compiled only
/// in CUDA builds, where a missing implementation is a link error. For operands of kMetaCudaDevice it
/// checks and allocates as for real ones and launches nothing (backend/cuda/kernel_call.h); for those of
/// kMetaCpuDevice nothing is called.
#define LH_DISPATCH(device_, op, call)                                          \
  do {                                                                          \
    const ::lh::Device lh_device_ = (device_);                                  \
    if (lh_device_.is_cpu()) {                                                  \
      ::lh::cpu::call;                                                          \
    } else if (lh_device_.is_like_cpu()) {                                      \
      /* shapes only */                                                         \
    } else if constexpr (::lh::kWithCuda) {                                     \
      ::lh::cuda::call;                                                         \
    } else if (!lh_device_.is_meta()) {                                         \
      ::lh::fail("[{}] this build has no CUDA backend", op);                    \
    }                                                                           \
  } while (false)

/// The same for an op whose CPU implementation needs scratch memory that counts beside its operands: that is
/// called for operands of kMetaCpuDevice too, where it allocates and computes nothing.
#define LH_DISPATCH_SCRATCH(device_, op, call)                      \
  do {                                                              \
    if ((device_).is_like_cpu()) {                                  \
      ::lh::cpu::call;                                              \
    } else {                                                        \
      LH_DISPATCH(device_, op, call);                               \
    }                                                               \
  } while (false)
