// The one header a kernel includes. The same .cu compiles with nvcc, where each wrapper is one PTX
// instruction, and with a host compiler, where the emulator gives it that instruction's meaning.
// README.md in this folder is the page to read before writing a kernel.
#pragma once
#include "kernels/xpu/types.h"

#ifdef __CUDACC__
#include "kernels/xpu/device/async_copy.cuh"
#include "kernels/xpu/device/hopper.cuh"
#include "kernels/xpu/device/launch.cuh"
#include "kernels/xpu/device/mma.cuh"
#include "kernels/xpu/device/threads.cuh"
#include "kernels/xpu/device/wgmma.cuh"
#else
#include "kernels/xpu/emu/async_copy.h"
#include "kernels/xpu/emu/hopper.h"
#include "kernels/xpu/emu/launch.h"
#include "kernels/xpu/emu/mma.h"
#include "kernels/xpu/emu/threads.h"
#include "kernels/xpu/emu/wgmma.h"
#endif

#include "kernels/xpu/reduce.h"
