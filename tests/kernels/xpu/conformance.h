// Launchers of the conformance kernels: one tiny kernel per wrapper of kernels/xpu. All pointers are
// device memory.
#pragma once
#include "kernels/xpu/types.h"

namespace lh::test {

// conformance.cu, sm_80. One warp unless said otherwise.
/// out[0..3][32]: shuffle from lane (5 l + operand) % 32, xor, up, down by operand; out[4][0..15]:
/// xor 4 among the lower half. wide_out[32]: xor of 8-byte values.
void run_shuffles(const float* in, const double* wide, float* out, double* wide_out, int operand);
/// out[0][32]: ballot of in != 0; out[1]: among each half of the warp.
void run_ballots(const int* in, unsigned* out);
/// 128 threads: two warps hand [rounds, 64] through one buffer to two others, which reverse a round.
void run_named_barriers(const float* in, float* out, int rounds);
/// 64 threads, a ring of 3 stages: rounds of 64 chunks, reversed within a round; chunks from
/// `valid_chunks` on are zero-filled and their source is not read.
template <int kBytes>
void run_copy_async(const void* in, void* out, int rounds, int valid_chunks);
/// tile [32, 8]; out[32][4]: the registers of each lane.
void run_load_matrix(const xpu::bf16* tile, std::uint32_t* out, bool transpose);
/// Registers a[32][4], b[32][2], d[32][4] of each lane; d is overwritten.
void run_mma(const std::uint32_t* a, const std::uint32_t* b, float* d, bool tf32);
/// out[0][n]: fast_exp, out[1]: fast_exp2, out[2]: rsqrt.
void run_math(const float* in, float* out, int n);
void run_conversions(const float* in, xpu::bf16* narrow, float* back, std::uint32_t* tf32, int n);
/// Vectors in reverse order, and the elements of each reversed.
template <class T, int N>
void run_vectors(const T* in, T* out, int vectors);
/// 256 threads: out[0][256]: warp_sum, out[1]: warp_max, out[2]: block_sum of the second half after
/// one of the first with the same scratch.
void run_reductions(const float* in, float* out);
/// 8 blocks of 64 threads add their global index; `as_float` sums halves exactly.
void run_atomics(int* as_int, unsigned* as_unsigned, float* as_float);
/// `groups` groups of `blocks` blocks: each block writes its 128 values of `in` to `parts`, and the last
/// of a group to arrive adds those of all, in order, into out[groups][128]. counters[groups]: 0 before
/// and after.
void run_last_block(const float* in, float* parts, float* out, int* counters, int groups,
                    int blocks);

// conformance_sm90.cu.
/// A producer warp hands rounds of 32 values to 3 consumer warps through 2 slots with a full and an
/// empty mbarrier each; out[3][rounds][32].
void run_mbarriers(const float* in, float* out, int rounds);
/// One box at (x, y) of a [rows, columns] matrix; out: the box's bytes as they lie in shared memory.
/// `twice`: one mbarrier expects this box and the one below it.
void run_tma_load(const void* matrix, int element_bytes, int rows, int columns, int row_elements,
                  int box_rows, int box_row_bytes, int x, int y, bool twice, unsigned char* out);
/// The reverse of one box.
void run_tma_store(const unsigned char* box, int element_bytes, int rows, int columns,
                   int row_elements, int box_rows, int box_row_bytes, int x, int y, void* matrix);
/// d[64, n] = a b over k of 128 (+ d when accumulate), operands as swizzled images of shared memory
/// in rows of `columns` elements, 64 or 32: kInner [128 / columns][64 or n rows][columns], kOuter
/// [64 or n / columns][128 k][columns].
/// `in_registers`: a is [64, 128] row-major and passes through registers. `pipelined`: a group per
/// step of 16, with wgmma_wait<1> between them.
struct WgmmaCase {
  int n = 64, columns = 64;
  bool a_outer = false, b_outer = false, in_registers = false, accumulate = false,
       pipelined = false;
};
void run_wgmma(const WgmmaCase& c, const xpu::bf16* a, const xpu::bf16* b, float* d);
/// 3 warpgroups, the first gives registers to the others; out[384] = in.
void run_register_budgets(const float* in, float* out);

}  // namespace lh::test
