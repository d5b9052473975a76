// Copies of the open keys of every kv head, one after another: a column compaction.
//   before_hj = how many rows i < j have a bias of kv head h above -inf
//   k'[before_hj][h] = k[j][h], and so v and bias, for the open rows j
// Copies and not indices: the copy engine of Hopper cannot gather, and a row that many query tiles read is
//   gathered once. The copies have the layout of k and v, so that the same loads and maps read them.
// Plan: a block per (512 rows, kv head), the heads of the same rows in neighbouring blocks, which share
//   sectors of the bias. One launch counts the open rows of each block. The other adds the counts of the
//   blocks before its own, numbers its rows by sums over lanes and warps, and copies the open ones, 16
//   bytes a thread. No block waits for another. Shared memory: the list of open rows, 2 KiB.
// Numerics: integers and copies. Determinism: exact.
// Rows of the copies behind the last open key are not written: whoever reads them must not use them.
// Roofline, an unmeasured estimate: memory; at density r, 4 r (d + dv) bytes a key and kv head in bf16 and 4
//   of bias, twice. 65536 keys x 8 heads of 128, all open: 0.54 GB, 0.11 ms at 4.8 TB/s; a tenth open: 16 us.
#include "kernels/attention/open_keys.h"

#include "kernels/attention/checks.h"
#include "kernels/xpu/xpu.h"

namespace lh::kernels {

namespace softmax {

namespace {

constexpr int kRows = 512, kWarps = kRows / 32;

/// The workspace, in the order of its parts.
template <class T>
struct OpenKeysOutput {
  T *k, *v;
  float* bias;
  int *before, *counts;  // counts [kv_heads, blocks of rows]
  std::size_t bytes;

  OpenKeysOutput(void* workspace, int key_rows, int kv_heads, int head_dim, int value_dim) {
    auto* const base = static_cast<unsigned char*>(workspace);
    const auto keys = static_cast<std::size_t>(key_rows) * static_cast<std::size_t>(kv_heads);
    bytes = 0;
    const auto take = [&](std::size_t size) {  // rows of k and v are multiples of 16 bytes
      const std::size_t at = bytes;
      bytes += size;
      return base ? base + at : nullptr;
    };
    k = reinterpret_cast<T*>(take(keys * static_cast<std::size_t>(head_dim) * sizeof(T)));
    v = reinterpret_cast<T*>(take(keys * static_cast<std::size_t>(value_dim) * sizeof(T)));
    bias = reinterpret_cast<float*>(take(keys * sizeof(float)));
    before = reinterpret_cast<int*>(
        take((keys + static_cast<std::size_t>(kv_heads)) * sizeof(int)));
    counts = reinterpret_cast<int*>(
        take(static_cast<std::size_t>(xpu::ceil_div(key_rows, kRows)) *
             static_cast<std::size_t>(kv_heads) * sizeof(int)));
  }
};

template <class T>
__device__ inline bool is_open(const AttentionOpenKeysParams<T>& p, int row, int head) {
  return row < p.key_rows &&
         p.bias[std::int64_t{row} * p.kv_heads + head] != -__builtin_huge_valf();
}

template <class T>
__global__ void __launch_bounds__(kRows)
    attention_open_keys_count_kernel(const AttentionOpenKeysParams<T> p, int* counts) {
  XPU_SHARED(int, scratch, [kWarps]);
  const int head = blockIdx.x % p.kv_heads, block = blockIdx.x / p.kv_heads;
  const int row = block * kRows + static_cast<int>(threadIdx.x);
  const int count = xpu::block_sum(is_open(p, row, head) ? 1 : 0, scratch);
  if (threadIdx.x == 0) counts[head * xpu::ceil_div(p.key_rows, kRows) + block] = count;
}

template <class T>
__global__ void __launch_bounds__(kRows)
    attention_open_keys_copy_kernel(const AttentionOpenKeysParams<T> p, OpenKeysOutput<T> to) {
  XPU_SHARED(int, scratch, [kWarps]);
  XPU_SHARED(int, open_rows, [kRows]);
  constexpr int kGroup = 16 / sizeof(T);  // elements of a copy
  const int head = blockIdx.x % p.kv_heads, block = blockIdx.x / p.kv_heads;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int row = block * kRows + thread;

  int first = 0;  // row of the copies
  const int* counts = to.counts + head * xpu::ceil_div(p.key_rows, kRows);
  for (int i = thread; i < block; i += kRows) first += counts[i];
  first = xpu::block_sum(first, scratch);

  const bool open = is_open(p, row, head);
  int rank = open ? 1 : 0;  // inclusive
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const int left = xpu::shuffle_up(rank, offset);
    if (lane >= offset) rank += left;
  }
  if (lane == 31) scratch[warp] = rank;
  xpu::sync_block();
  int open_count = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    if (w == warp) rank += open_count;
    open_count += scratch[w];
  }
  if (open) {
    open_rows[rank - 1] = row;
    to.bias[std::int64_t{first + rank - 1} * p.kv_heads + head] =
        p.bias[std::int64_t{row} * p.kv_heads + head];
  }
  if (row < p.key_rows) {
    int* before = to.before + std::int64_t{head} * (p.key_rows + 1);
    before[row + 1] = first + rank;
    if (row == 0) before[0] = 0;
  }
  xpu::sync_block();

  const auto copy = [&](const T* from, std::int64_t stride, T* target, int d) {
    const int groups = d / kGroup;
    for (int i = thread; i < open_count * groups; i += kRows) {
      const int r = i / groups, element = head * d + i % groups * kGroup;
      xpu::store_vec(target + std::int64_t{first + r} * p.kv_heads * d + element,
                     xpu::load_vec<kGroup>(from + open_rows[r] * stride + element));
    }
  };
  copy(p.k, p.k_stride, to.k, p.head_dim);
  copy(p.v, p.v_stride, to.v, p.value_dim);
}

}  // namespace

}  // namespace softmax

template <class T>
std::size_t attention_open_keys_bytes(int key_rows, int kv_heads, int head_dim, int value_dim) {
  return softmax::OpenKeysOutput<T>(nullptr, key_rows, kv_heads, head_dim, value_dim).bytes;
}

template <class T>
AttentionOpenKeys<T> attention_open_keys(const AttentionOpenKeysParams<T>& p, xpu::Stream stream) {
  const std::string op = "attention_open_keys";
  checks::require(p.key_rows == 0 || (p.bias && p.workspace), op,
                  "keys come with a bias and a workspace, got " + std::string(p.bias ? "no workspace" : "no bias"));
  checks::require_rows(p.k, p.k_stride, op, "k");
  checks::require_rows(p.v, p.v_stride, op, "v");
  checks::require_rows(static_cast<const T*>(p.workspace), p.head_dim, op, "the copy of k");
  checks::require_rows(static_cast<const T*>(p.workspace), p.value_dim, op, "the copy of v");
  if (p.key_rows == 0) return {};
  const softmax::OpenKeysOutput<T> to(p.workspace, p.key_rows, p.kv_heads, p.head_dim, p.value_dim);
  const auto blocks = static_cast<unsigned>(xpu::ceil_div(p.key_rows, softmax::kRows)) *
                      static_cast<unsigned>(p.kv_heads);
  const xpu::LaunchConfig launch{blocks, softmax::kRows, 0, stream};
  xpu::launch<softmax::attention_open_keys_count_kernel<T>>(launch, p, to.counts);
  xpu::launch<softmax::attention_open_keys_copy_kernel<T>>(launch, p, to);
  return {to.before, to.k, to.v, to.bias};
}

template std::size_t attention_open_keys_bytes<float>(int, int, int, int);
template std::size_t attention_open_keys_bytes<xpu::bf16>(int, int, int, int);
template AttentionOpenKeys<float> attention_open_keys(const AttentionOpenKeysParams<float>&,
                                                      xpu::Stream);
template AttentionOpenKeys<xpu::bf16> attention_open_keys(
    const AttentionOpenKeysParams<xpu::bf16>&, xpu::Stream);

}  // namespace lh::kernels
