// Tables of tile primitives whose operands are plain f32 (or f64) rows, for tensors of each dtype.
#pragma once

#include "backend/cpu/attention_tiles.h"
#include "backend/cpu/simd.h"

LH_SIMD_DECLARE(const TileOps<float>& tile_ops_f32();
                const TileOps<float>& tile_ops_bf16();  // converts when packing
                const TileOps<double>& tile_ops_f64();)
