// Tables of tile primitives that multiply bf16 pairs and sum in f32: AMX tiles, or the AVX-512
// dot product of pairs. Compiled with their own flags; only for cpu_info().amx_bf16, .avx512_bf16.
#pragma once

#include "backend/cpu/attention_tiles.h"

namespace lh::cpu {

const TileOps<float>& tile_ops_amx();
const TileOps<float>& tile_ops_avx512_bf16();

}  // namespace lh::cpu
