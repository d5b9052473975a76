// Copies: contiguous in groups of 16 bytes, transposes through 32 x 32 tiles of shared memory (padded
// rows, so that neither side meets a bank twice), everything else element by element.
// Roofline: memory, one read and one write per element; 100M bf16 take 0.08 ms at 4.8 TB/s. An
//   estimate, unmeasured.
#include "kernels/elementwise/copy.h"

#include "kernels/elementwise/map.h"

namespace lh::kernels {

namespace {

template <class To, class From>
__device__ inline To convert(From x) {
  if constexpr (sizeof(To) == 2 && !std::is_integral_v<To>) {
    return xpu::from_float<xpu::bf16>(convert<float>(x));
  } else if constexpr (sizeof(From) == 2 && !std::is_integral_v<From>) {
    return static_cast<To>(xpu::to_float(x));
  } else {
    return static_cast<To>(x);
  }
}

/// Same bits, whatever they mean.
template <int kBytes>
struct BitsOf;
template <>
struct BitsOf<1> { using Type = std::uint8_t; };
template <>
struct BitsOf<2> { using Type = std::uint16_t; };
template <>
struct BitsOf<4> { using Type = std::uint32_t; };
template <>
struct BitsOf<8> { using Type = std::uint64_t; };

template <class From, class To>
struct CopyFlat {
  const From* src;
  To* dst;
  template <int N>
  __device__ void at(std::int64_t i) const {
    if constexpr (std::is_same_v<From, To>) {
      xpu::store_vec(dst + i, xpu::load_vec<N>(src + i));
    } else {
      float x[N];
      load<N>(src + i, x);
      store<N>(dst + i, x);
    }
  }
};

// On the device all dimensions are there, the slow ones of size 1, so that indices into the parameters
// are constants.
constexpr int kRank = CopyParams::kMaxRank;

template <class From, class To>
struct CopyStrided {
  CopyParams p;
  template <int N>
  __device__ void at(std::int64_t i) const {
    std::int64_t src = 0, dst = 0;
#pragma unroll
    for (int d = kRank - 1; d >= 0; --d) {
      const std::int64_t at = d > 0 ? i % p.size[d] : i;
      i /= p.size[d];
      src += at * p.src_stride[d];
      dst += at * p.dst_stride[d];
    }
    static_cast<To*>(p.dst)[dst] = convert<To>(static_cast<const From*>(p.src)[src]);
  }
};

constexpr int kTile = 32, kTileRows = 8;

/// The last two dimensions are transposed: src is contiguous along the last but one.
template <class From, class To>
__global__ void __launch_bounds__(kTile * kTileRows) copy_transposed_kernel(const CopyParams p) {
  XPU_SHARED(From, tile, [kTile][kTile + 1]);
  const int x = threadIdx.x % kTile, y = threadIdx.x / kTile;
  const std::int64_t rows = p.size[kRank - 2], cols = p.size[kRank - 1];
  std::int64_t src = 0, dst = 0, plane = blockIdx.z;
#pragma unroll
  for (int d = kRank - 3; d >= 0; --d) {
    src += plane % p.size[d] * p.src_stride[d];
    dst += plane % p.size[d] * p.dst_stride[d];
    plane /= p.size[d];
  }
  const std::int64_t row0 = static_cast<std::int64_t>(blockIdx.y) * kTile;
  const std::int64_t col0 = static_cast<std::int64_t>(blockIdx.x) * kTile;
  for (int j = y; j < kTile; j += kTileRows) {
    if (row0 + x < rows && col0 + j < cols) {
      tile[j][x] = static_cast<const From*>(
          p.src)[src + row0 + x + (col0 + j) * p.src_stride[kRank - 1]];
    }
  }
  xpu::sync_block();
  for (int j = y; j < kTile; j += kTileRows) {
    if (row0 + j < rows && col0 + x < cols) {
      static_cast<To*>(p.dst)[dst + (row0 + j) * p.dst_stride[kRank - 2] + col0 + x] =
          convert<To>(tile[x][j]);
    }
  }
}

template <class From, class To>
void copy_as(const CopyParams& p, std::int64_t n, xpu::Stream stream) {
  // Pairs of types that move often have fast paths; the others are rare and small.
  constexpr bool kOften = std::is_same_v<From, To> ||
                          (sizeof(From) + sizeof(To) == 6 && !std::is_integral_v<From> &&
                           !std::is_integral_v<To>);
  if constexpr (kOften) {
    if (p.rank == 1 && p.src_stride[kRank - 1] == 1 && p.dst_stride[kRank - 1] == 1) {
      constexpr int kGroup = 16 / (sizeof(From) > sizeof(To) ? sizeof(To) : sizeof(From));
      return map<kGroup>(CopyFlat<From, To>{static_cast<const From*>(p.src), static_cast<To*>(p.dst)},
                         n, aligned16(p.src) && aligned16(p.dst), stream);
    }
    if (p.rank >= 2 && p.src_stride[kRank - 2] == 1 && p.dst_stride[kRank - 1] == 1) {
      const std::int64_t rows = p.size[kRank - 2], cols = p.size[kRank - 1];
      const auto tiles_y = xpu::ceil_div(rows, kTile), planes = n / (rows * cols);
      if (tiles_y < 65536 && planes < 65536) {
        const dim3 grid{static_cast<unsigned>(xpu::ceil_div(cols, kTile)),
                        static_cast<unsigned>(tiles_y), static_cast<unsigned>(planes)};
        return xpu::launch<copy_transposed_kernel<From, To>>({grid, kTile * kTileRows, 0, stream},
                                                             p);
      }
    }
  }
  map<1>(CopyStrided<From, To>{p}, n, false, stream);
}

template <class From>
void copy_from(const CopyParams& p, std::int64_t n, xpu::Stream stream) {
  switch (p.to) {
    case ElementType::kF32: return copy_as<From, float>(p, n, stream);
    case ElementType::kBF16: return copy_as<From, xpu::bf16>(p, n, stream);
    case ElementType::kF64: return copy_as<From, double>(p, n, stream);
    case ElementType::kI32: return copy_as<From, std::int32_t>(p, n, stream);
    case ElementType::kI64: return copy_as<From, std::int64_t>(p, n, stream);
    case ElementType::kU8: return copy_as<From, std::uint8_t>(p, n, stream);
  }
}

template <int kBytes>
void copy_bits(const CopyParams& p, std::int64_t n, xpu::Stream stream) {
  using Bits = typename BitsOf<kBytes>::Type;
  copy_as<Bits, Bits>(p, n, stream);
}

}  // namespace

void copy(const CopyParams& given, xpu::Stream stream) {
  if (given.rank < 1 || given.rank > kRank) {
    throw xpu::Error("copy: 1 to 4 dimensions, got " + std::to_string(given.rank));
  }
  CopyParams p = given;
  std::int64_t n = 1;
  for (int d = 0; d < kRank; ++d) {
    const int from = d - (kRank - given.rank);
    p.size[d] = from < 0 ? 1 : given.size[from];
    p.src_stride[d] = from < 0 ? 0 : given.src_stride[from];
    p.dst_stride[d] = from < 0 ? 0 : given.dst_stride[from];
    n *= p.size[d];
  }
  if (n == 0) return;
  if (p.from == p.to) {
    switch (p.from) {
      case ElementType::kBF16: return copy_bits<2>(p, n, stream);
      case ElementType::kF32:
      case ElementType::kI32: return copy_bits<4>(p, n, stream);
      case ElementType::kF64:
      case ElementType::kI64: return copy_bits<8>(p, n, stream);
      case ElementType::kU8: return copy_bits<1>(p, n, stream);
    }
  }
  switch (p.from) {
    case ElementType::kF32: return copy_from<float>(p, n, stream);
    case ElementType::kBF16: return copy_from<xpu::bf16>(p, n, stream);
    case ElementType::kF64: return copy_from<double>(p, n, stream);
    case ElementType::kI32: return copy_from<std::int32_t>(p, n, stream);
    case ElementType::kI64: return copy_from<std::int64_t>(p, n, stream);
    case ElementType::kU8: return copy_from<std::uint8_t>(p, n, stream);
  }
}

}  // namespace lh::kernels
