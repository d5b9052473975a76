// Kernels that use one wrapper each; conformance.h says what they compute.
#include "kernels/xpu/conformance.h"

#include "kernels/xpu/xpu.h"

namespace lh::test {

namespace {

__global__ void shuffle_kernel(const float* in, const double* wide, float* out, double* wide_out,
                               int operand) {
  const int lane = threadIdx.x;
  const float x = in[lane];
  out[lane] = xpu::shuffle(x, (5 * lane + operand) % 32);
  out[32 + lane] = xpu::shuffle_xor(x, operand);
  out[64 + lane] = xpu::shuffle_up(x, operand);
  out[96 + lane] = xpu::shuffle_down(x, operand);
  if (lane < 16) out[128 + lane] = xpu::shuffle_xor(x, 4, 0xffffu);
  xpu::sync_warp();
  wide_out[lane] = xpu::shuffle_xor(wide[lane], operand);
}

__global__ void ballot_kernel(const int* in, unsigned* out) {
  const int lane = threadIdx.x;
  const bool x = in[lane] != 0;
  out[lane] = xpu::ballot(x);
  if (lane < 16) {
    out[32 + lane] = xpu::ballot(x, 0x0000ffffu);
  } else {
    out[32 + lane] = xpu::ballot(x, 0xffff0000u);
  }
}

__global__ void named_barrier_kernel(const float* in, float* out, int rounds) {
  XPU_SHARED(float, slot, [64]);
  constexpr int kFull = 1, kEmpty = 2;
  const int t = threadIdx.x % 64;
  if (threadIdx.x < 64) {
    for (int round = 0; round < rounds; ++round) {
      if (round > 0) xpu::named_sync(kEmpty, 128);
      slot[t] = in[round * 64 + t];
      xpu::named_arrive(kFull, 128);
    }
  } else {
    for (int round = 0; round < rounds; ++round) {
      xpu::named_sync(kFull, 128);
      out[round * 64 + t] = slot[63 - t];
      if (round + 1 < rounds) xpu::named_arrive(kEmpty, 128);
    }
  }
}

template <int kBytes>
__global__ void copy_async_kernel(const unsigned char* in, unsigned char* out, int rounds,
                                  int valid_chunks) {
  constexpr int kStages = 3;
  XPU_SHARED(unsigned char, ring, [kStages][64 * kBytes]);
  const int t = threadIdx.x;
  const auto fetch = [&](int round) {
    if (round < rounds) {
      const int chunk = round * 64 + t;
      const bool valid = chunk < valid_chunks;
      xpu::copy_async<kBytes>(ring[round % kStages] + t * kBytes, in + (valid ? chunk * kBytes : 0),
                              valid);
    }
    xpu::copy_async_commit();  // empty groups keep the count right
  };
  for (int round = 0; round < kStages - 1; ++round) fetch(round);
  for (int round = 0; round < rounds; ++round) {
    xpu::copy_async_wait<kStages - 2>();
    xpu::sync_block();  // this round's copies are seen by all; the slot of the last round is free
    fetch(round + kStages - 1);
    const auto chunk =
        xpu::load_vec<kBytes / 4>(reinterpret_cast<const std::uint32_t*>(ring[round % kStages]) +
                                  (63 - t) * (kBytes / 4));
    xpu::store_vec(reinterpret_cast<std::uint32_t*>(out) + (round * 64 + t) * (kBytes / 4), chunk);
  }
}

template <bool kTranspose>
__global__ void load_matrix_kernel(const xpu::bf16* tile, std::uint32_t* out) {
  XPU_SHARED(xpu::bf16, rows, [32][8]);
  const int lane = threadIdx.x;
  xpu::store_vec(rows[lane], xpu::load_vec<8>(tile + lane * 8));
  xpu::sync_warp();
  std::uint32_t r[4];
  xpu::load_matrix_x4<kTranspose>(r, rows[lane]);
  for (int i = 0; i < 4; ++i) out[lane * 4 + i] = r[i];
}

template <bool kTf32>
__global__ void mma_kernel(const std::uint32_t* a, const std::uint32_t* b, float* d) {
  const int lane = threadIdx.x;
  std::uint32_t ra[4], rb[2];
  float rd[4];
  for (int i = 0; i < 4; ++i) ra[i] = a[lane * 4 + i];
  for (int i = 0; i < 2; ++i) rb[i] = b[lane * 2 + i];
  for (int i = 0; i < 4; ++i) rd[i] = d[lane * 4 + i];
  if constexpr (kTf32) {
    xpu::mma_tf32(rd, ra, rb);
  } else {
    xpu::mma_bf16(rd, ra, rb);
  }
  for (int i = 0; i < 4; ++i) d[lane * 4 + i] = rd[i];
}

__global__ void math_kernel(const float* in, float* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  out[i] = xpu::fast_exp(in[i]);
  out[n + i] = xpu::fast_exp2(in[i]);
  out[2 * n + i] = xpu::rsqrt(in[i]);
}

__global__ void conversion_kernel(const float* in, xpu::bf16* narrow, float* back,
                                  std::uint32_t* tf32, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  narrow[i] = xpu::from_float<xpu::bf16>(in[i]);
  back[i] = xpu::to_float(narrow[i]);
  tf32[i] = xpu::to_tf32(in[i]);
}

template <class T, int N>
__global__ void vector_kernel(const T* in, T* out, int vectors) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= vectors) return;
  const auto x = xpu::load_vec<N>(in + i * N);
  xpu::Vec<T, N> y;
  for (int j = 0; j < N; ++j) y[j] = x[N - 1 - j];
  xpu::store_vec(out + (vectors - 1 - i) * N, y);
}

__global__ void reduction_kernel(const float* in, float* out) {
  XPU_SHARED(float, scratch, [8]);
  const int t = threadIdx.x;
  out[t] = xpu::warp_sum(in[t]);
  out[256 + t] = xpu::warp_max(in[t]);
  const float first = xpu::block_sum(in[t], scratch);
  out[512 + t] = xpu::block_sum(in[256 + t] - first, scratch);
}

__global__ void atomic_kernel(int* as_int, unsigned* as_unsigned, float* as_float) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  xpu::atomic_add(as_int, -i);
  xpu::atomic_add(as_unsigned, static_cast<unsigned>(i));
  xpu::atomic_add(as_float, 0.5f * i);
}

__global__ void last_block_kernel(const float* in, float* parts, float* out, int* counters,
                                  int blocks) {
  XPU_SHARED(int, arrived, [1]);
  const int t = threadIdx.x, group = static_cast<int>(blockIdx.x) / blocks;
  parts[blockIdx.x * 128 + t] = in[blockIdx.x * 128 + t];
  xpu::fence_device();
  xpu::sync_block();
  if (t == 0) arrived[0] = xpu::atomic_add(counters + group, 1);
  xpu::sync_block();
  if (arrived[0] != blocks - 1) return;
  xpu::fence_device();
  float sum = 0.0f;
  for (int b = 0; b < blocks; ++b) sum += parts[(group * blocks + b) * 128 + 127 - t];
  out[group * 128 + t] = sum;
  if (t == 0) counters[group] = 0;
}

unsigned blocks(int n) { return static_cast<unsigned>(xpu::ceil_div(n, 128)); }

}  // namespace

void run_shuffles(const float* in, const double* wide, float* out, double* wide_out, int operand) {
  xpu::launch<shuffle_kernel>({1, 32}, in, wide, out, wide_out, operand);
}

void run_ballots(const int* in, unsigned* out) { xpu::launch<ballot_kernel>({1, 32}, in, out); }

void run_named_barriers(const float* in, float* out, int rounds) {
  xpu::launch<named_barrier_kernel>({1, 128}, in, out, rounds);
}

template <int kBytes>
void run_copy_async(const void* in, void* out, int rounds, int valid_chunks) {
  xpu::launch<copy_async_kernel<kBytes>>({1, 64}, static_cast<const unsigned char*>(in),
                                         static_cast<unsigned char*>(out), rounds, valid_chunks);
}
template void run_copy_async<4>(const void*, void*, int, int);
template void run_copy_async<8>(const void*, void*, int, int);
template void run_copy_async<16>(const void*, void*, int, int);

void run_load_matrix(const xpu::bf16* tile, std::uint32_t* out, bool transpose) {
  if (transpose) {
    xpu::launch<load_matrix_kernel<true>>({1, 32}, tile, out);
  } else {
    xpu::launch<load_matrix_kernel<false>>({1, 32}, tile, out);
  }
}

void run_mma(const std::uint32_t* a, const std::uint32_t* b, float* d, bool tf32) {
  if (tf32) {
    xpu::launch<mma_kernel<true>>({1, 32}, a, b, d);
  } else {
    xpu::launch<mma_kernel<false>>({1, 32}, a, b, d);
  }
}

void run_math(const float* in, float* out, int n) {
  xpu::launch<math_kernel>({blocks(n), 128}, in, out, n);
}

void run_conversions(const float* in, xpu::bf16* narrow, float* back, std::uint32_t* tf32, int n) {
  xpu::launch<conversion_kernel>({blocks(n), 128}, in, narrow, back, tf32, n);
}

template <class T, int N>
void run_vectors(const T* in, T* out, int vectors) {
  xpu::launch<vector_kernel<T, N>>({blocks(vectors), 128}, in, out, vectors);
}
template void run_vectors<float, 1>(const float*, float*, int);
template void run_vectors<float, 2>(const float*, float*, int);
template void run_vectors<float, 4>(const float*, float*, int);
template void run_vectors<xpu::bf16, 1>(const xpu::bf16*, xpu::bf16*, int);
template void run_vectors<xpu::bf16, 4>(const xpu::bf16*, xpu::bf16*, int);
template void run_vectors<xpu::bf16, 8>(const xpu::bf16*, xpu::bf16*, int);

void run_reductions(const float* in, float* out) {
  xpu::launch<reduction_kernel>({1, 256}, in, out);
}

void run_atomics(int* as_int, unsigned* as_unsigned, float* as_float) {
  xpu::launch<atomic_kernel>({8, 64}, as_int, as_unsigned, as_float);
}

void run_last_block(const float* in, float* parts, float* out, int* counters, int groups,
                    int blocks) {
  xpu::launch<last_block_kernel>({static_cast<unsigned>(groups * blocks), 128}, in, parts, out,
                                 counters, blocks);
}

}  // namespace lh::test
