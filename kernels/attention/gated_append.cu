// Append to self-pruned caches (SP-KV, arXiv 2605.14037): with w the window, seen = tokens so far,
//   token t leaves the ring when token t + w enters; bit[t] ? row w + stored++ : dropped
//   token t enters in row t % w, with bit[t] = (gate[t] == 0)
// Tiling: a block per head. Tokens that leave, of the ring and of the new ones, are taken 512 at a time in
//   order: a thread per token reads its bit, sums over lanes and warps number the kept ones, and all
//   threads copy their rows, 16 bytes each. Then the last w new tokens are written into the ring.
//   Decoding is one token: one row at most to each place. Shared memory: 512 positions.
// Numerics: rows are copied, nothing is computed.
// Determinism: exact, whatever the order of blocks; no block touches the rows of another.
// Roofline, an unmeasured estimate: decoding moves 2 KiB per head at d = 128 in bf16: latency, some 3 us.
//   Prefill of 32768 tokens x 8 heads of 128, all kept: 268 MB, 56 us at 4.8 TB/s; 8 blocks of 512 threads
//   with 64 bytes each on their way move about 45 GB/s each: 0.4 ms, beside 18 ms of attention for 32 query
//   heads at half of 989 TFLOP/s.
#include "kernels/attention/gated_append.h"

#include "kernels/attention/checks.h"
#include "kernels/xpu/xpu.h"

namespace lh::kernels {

namespace gated {

constexpr int kThreads = 512, kWarps = kThreads / 32;
constexpr int kInFlight = 4;  // copies of a thread
template <class T>
constexpr int kGroup = 16 / sizeof(T);  // elements of a copy

template <class T>
struct Head {
  const GatedAppendParams<T>& p;
  int head, seen;

  /// Row of the cache that holds a row of this head.
  __device__ std::int64_t at(int row) const {
    const int page = p.pages[std::int64_t{head} * p.pages_per_head + row / p.page_size];
    return std::int64_t{page} * p.page_size + row % p.page_size;
  }
  __device__ std::uint8_t* ring_bit(int token) const {
    return p.bits + std::int64_t{head} * p.window + token % p.window;
  }
  __device__ bool is_open(int new_token) const {
    return p.gates[std::int64_t{new_token} * p.heads + head] == 0.0f;
  }
  __device__ bool is_kept(int token) const {
    return token < seen ? *ring_bit(token) != 0 : is_open(token - seen);
  }

  /// Eight or four elements of a token, of the ring or new; `group` counts those of k, then those of v.
  __device__ xpu::Vec<T, kGroup<T>> load(int token, int group) const {
    const int of_k = p.head_dim / kGroup<T>;
    const bool is_k = group < of_k;
    const int d = is_k ? p.head_dim : p.value_dim;
    const T* const row =
        token < seen ? (is_k ? p.k : p.v) + at(token % p.window) * d
        : is_k       ? p.new_k + std::int64_t{token - seen} * p.k_stride + head * d
                     : p.new_v + std::int64_t{token - seen} * p.v_stride + head * d;
    return xpu::load_vec<kGroup<T>>(row + (is_k ? group : group - of_k) * kGroup<T>);
  }
  __device__ void store(int row, int group, const xpu::Vec<T, kGroup<T>>& x) const {
    const int of_k = p.head_dim / kGroup<T>;
    const bool is_k = group < of_k;
    T* const to = (is_k ? p.k : p.v) + at(row) * (is_k ? p.head_dim : p.value_dim);
    xpu::store_vec(to + (is_k ? group : group - of_k) * kGroup<T>, x);
  }

  /// Copies token token_of(i) to row row_of(i) for i < count; no row is read here that is written here.
  /// The whole block calls it.
  template <class TokenOf, class RowOf>
  __device__ void copy(int count, const TokenOf& token_of, const RowOf& row_of) const {
    const int groups = (p.head_dim + p.value_dim) / kGroup<T>, all = count * groups;
    for (int first = threadIdx.x; first < all; first += kInFlight * kThreads) {
      xpu::Vec<T, kGroup<T>> x[kInFlight];  // all loads are on their way before the first store
#pragma unroll
      for (int j = 0; j < kInFlight; ++j) {
        const int i = first + j * kThreads;
        if (i < all) x[j] = load(token_of(i / groups), i % groups);
      }
#pragma unroll
      for (int j = 0; j < kInFlight; ++j) {
        const int i = first + j * kThreads;
        if (i < all) store(row_of(i / groups), i % groups, x[j]);
      }
    }
  }
};

/// How many lower threads say `is_set`, and through `total` how many of all. The whole block calls it.
__device__ inline int count_before(bool is_set, int (&sums)[kWarps], int& total) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int inclusive = is_set ? 1 : 0;
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const int left = xpu::shuffle_up(inclusive, offset);
    if (lane >= offset) inclusive += left;
  }
  if (lane == 31) sums[warp] = inclusive;
  xpu::sync_block();
  int before = inclusive - (is_set ? 1 : 0);
  total = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    if (w == warp) before += total;
    total += sums[w];
  }
  return before;
}

template <class T>
__global__ void __launch_bounds__(kThreads) gated_append_kernel(const GatedAppendParams<T> p) {
  XPU_SHARED(int, kept, [kThreads]);
  XPU_SHARED(int, sums, [kWarps]);
  const int head = static_cast<int>(blockIdx.x), w = p.window;
  const int seen = p.seen[head], end = seen + p.tokens;
  const Head<T> h{p, head, seen};
  int length = p.lengths[head] + (seen < w ? w - seen : 0);  // as if the ring were full

  const int leaving_end = end - w;
  for (int first = seen > w ? seen - w : 0; first < leaving_end; first += kThreads) {
    const int token = first + static_cast<int>(threadIdx.x);
    const bool keep = token < leaving_end && h.is_kept(token);
    int count;
    const int place = count_before(keep, sums, count);
    if (keep) kept[place] = token;
    xpu::sync_block();
    h.copy(count, [&](int i) { return kept[i]; }, [&](int i) { return length + i; });
    length += count;
    xpu::sync_block();  // the positions have been read, and what leaves the ring is out of it
  }

  const int entering = end - seen < w ? seen : end - w;
  h.copy(end - entering, [&](int i) { return entering + i; },
         [&](int i) { return (entering + i) % w; });
  for (int token = entering + static_cast<int>(threadIdx.x); token < end; token += kThreads) {
    *h.ring_bit(token) = h.is_open(token - seen) ? 1 : 0;
  }
  xpu::sync_block();  // every thread has read the counts
  if (threadIdx.x == 0) {
    p.seen[head] = end;
    p.lengths[head] = length - (end < w ? w - end : 0);
  }
}

}  // namespace gated

template <class T>
void gated_append(const GatedAppendParams<T>& p, xpu::Stream stream) {
  using checks::require;
  const std::string op = "gated_append";
  checks::require_rows(p.new_k, p.k_stride, op, "new_k");
  checks::require_rows(p.new_v, p.v_stride, op, "new_v");
  checks::require_rows(p.k, p.head_dim, op, "k");
  checks::require_rows(p.v, p.value_dim, op, "v");
  require(p.head_dim > 0 && p.value_dim > 0 && p.tokens >= 0 && p.heads >= 0, op,
          "head sizes above 0, tokens and heads of at least 0, got " + std::to_string(p.head_dim) +
              ", " + std::to_string(p.value_dim) + ", " + std::to_string(p.tokens) + " and " +
              std::to_string(p.heads));
  require(p.page_size >= 16 && (p.page_size & (p.page_size - 1)) == 0, op,
          "the page size is a power of two of at least 16, got " + std::to_string(p.page_size));
  require(p.window >= 1 && p.window <= std::int64_t{p.pages_per_head} * p.page_size, op,
          "a window of at least 1 that the page table covers, got " + std::to_string(p.window) +
              " and " + std::to_string(p.pages_per_head) + " pages of " +
              std::to_string(p.page_size));
  if (p.tokens == 0 || p.heads == 0) return;
  xpu::launch<gated::gated_append_kernel<T>>(
      {static_cast<unsigned>(p.heads), gated::kThreads, 0, stream}, p);
}

template void gated_append(const GatedAppendParams<float>&, xpu::Stream);
template void gated_append(const GatedAppendParams<xpu::bf16>&, xpu::Stream);

}  // namespace lh::kernels
