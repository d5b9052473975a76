// The rendezvous of a warp's lanes behind shuffles, ldmatrix, mma and wgmma.
#pragma once
#include "kernels/xpu/emu/where.h"

namespace xpu::emu {

/// lanes[i]: what lane i passed, null if it takes no part; `arrived`: the lanes that take part.
using Combine = void (*)(void** lanes, unsigned arrived, int warp, Where where);

/// The last lane to arrive runs `combine` for all. `aligned`: all lanes must be on one line.
void collective(const char* name, unsigned mask, void* args, Combine combine, Where where,
                bool aligned);

}  // namespace xpu::emu
