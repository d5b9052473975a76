// Device side: wgmma, the asynchronous matrix product of a warpgroup (sm_90a). The operand lists
// are written out because inline assembly cannot take an array.
#pragma once
#include "kernels/xpu/device/async_copy.cuh"

namespace xpu {

/// How an operand tile lies in shared memory, always swizzled as TMA writes it, in rows of 64
/// elements (128 bytes) or 32 (64 bytes):
/// kInner: a row is contiguous along K (a row per m or n);
/// kOuter: a row is contiguous along M or N (a row per k), the transposed operand.
enum Major { kInner = 0, kOuter = 1 };

/// Descriptor of an operand that starts at `tile`, with rows of kRowBytes. kInner: `stride` is the
/// distance in bytes of groups of 8 rows (as by default in a dense tile), `lead` is unused. kOuter:
/// `stride` is the distance of groups of 8 k, `lead` that of the next kRowBytes of m or n. Within a
/// kInner tile, step 16 of K is `tile + 16`, up to the row's end; the tile itself is aligned to 8
/// rows.
template <int kRowBytes = 128>
__device__ __forceinline__ std::uint64_t wgmma_operand(const bf16* tile, int stride = 8 * kRowBytes,
                                                       int lead = 16) {
  static_assert(kRowBytes == 128 || kRowBytes == 64);
  return static_cast<std::uint64_t>((shared_address(tile) & 0x3ffff) >> 4) |
         static_cast<std::uint64_t>(lead >> 4) << 16 |
         static_cast<std::uint64_t>(stride >> 4) << 32 |
         std::uint64_t{kRowBytes == 128 ? 1 : 2} << 62;
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define XPU_WGMMA_ASM(code) asm volatile(code ::: "memory")
#else  // other architectures compile the kernel but must not launch it
#define XPU_WGMMA_ASM(code) __trap()
#endif

/// Before the first wgmma, and after registers of its operands were written.
__device__ __forceinline__ void wgmma_fence() { XPU_WGMMA_ASM("wgmma.fence.sync.aligned;"); }
__device__ __forceinline__ void wgmma_commit() {
  XPU_WGMMA_ASM("wgmma.commit_group.sync.aligned;");
}
/// Until at most kPending groups are unfinished; only then may results be read and tiles reused.
template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
#endif
}
#undef XPU_WGMMA_ASM

#define XPU_D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define XPU_D8(i) XPU_D4(i), XPU_D4(i + 4)

/// d = a b (+ d), 64xN = 64x16 16xN, N of 48, 64, 96, 128, 256, by the four warps of a warpgroup.
/// Thread t holds in d[4 j + 2 i + c] row 16 (t / 32) + t % 32 / 4 + 8 i, column 8 j + 2 (t % 4) + c.
template <Major kMajorA = kInner, Major kMajorB = kInner, int kAccumulators>
__device__ __forceinline__ void wgmma(float (&d)[kAccumulators], std::uint64_t a, std::uint64_t b,
                                      bool accumulate_) {
  const int accumulate = accumulate_;
  static_assert(kAccumulators == 24 || kAccumulators == 32 || kAccumulators == 48 ||
                kAccumulators == 64 || kAccumulators == 128);
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  if constexpr (kAccumulators == 24) {
    asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %26, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n48k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23}, "
      "%24, %25, p, 1, 1, %27, %28;\n}"
      : XPU_D8(0), XPU_D8(8), XPU_D8(16)
      : "l"(a), "l"(b), "r"(accumulate), "n"(static_cast<int>(kMajorA)), "n"(static_cast<int>(kMajorB)));
  } else if constexpr (kAccumulators == 32) {
    asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, "
      "%30, %31}, "
      "%32, %33, p, 1, 1, %35, %36;\n}"
      : XPU_D8(0), XPU_D8(8), XPU_D8(16), XPU_D8(24)
      : "l"(a), "l"(b), "r"(accumulate), "n"(static_cast<int>(kMajorA)), "n"(static_cast<int>(kMajorB)));
  } else if constexpr (kAccumulators == 48) {
    asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %50, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n96k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, "
      "%30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, "
      "%44, %45, %46, %47}, "
      "%48, %49, p, 1, 1, %51, %52;\n}"
      : XPU_D8(0), XPU_D8(8), XPU_D8(16), XPU_D8(24), XPU_D8(32), XPU_D8(40)
      : "l"(a), "l"(b), "r"(accumulate), "n"(static_cast<int>(kMajorA)), "n"(static_cast<int>(kMajorB)));
  } else if constexpr (kAccumulators == 64) {
    asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, "
      "%30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, "
      "%44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, "
      "%58, %59, %60, %61, %62, %63}, "
      "%64, %65, p, 1, 1, %67, %68;\n}"
      : XPU_D8(0), XPU_D8(8), XPU_D8(16), XPU_D8(24), XPU_D8(32), XPU_D8(40), XPU_D8(48),
        XPU_D8(56)
      : "l"(a), "l"(b), "r"(accumulate), "n"(static_cast<int>(kMajorA)), "n"(static_cast<int>(kMajorB)));
  } else if constexpr (kAccumulators == 128) {
    asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, "
      "%30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, "
      "%44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, "
      "%58, %59, %60, %61, %62, %63, %64, %65, %66, %67, %68, %69, %70, %71, "
      "%72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, "
      "%86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, "
      "%100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
      "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, "
      "%124, %125, %126, %127}, "
      "%128, %129, p, 1, 1, %131, %132;\n}"
      : XPU_D8(0), XPU_D8(8), XPU_D8(16), XPU_D8(24), XPU_D8(32), XPU_D8(40), XPU_D8(48),
        XPU_D8(56), XPU_D8(64), XPU_D8(72), XPU_D8(80), XPU_D8(88), XPU_D8(96), XPU_D8(104),
        XPU_D8(112), XPU_D8(120)
      : "l"(a), "l"(b), "r"(accumulate), "n"(static_cast<int>(kMajorA)), "n"(static_cast<int>(kMajorB)));
  }
#else
  (void)a, (void)b, (void)accumulate;
  __trap();
#endif
}

/// The same with the 64x16 operand a in registers, laid out as for mma_bf16 in each warp.
template <Major kMajorB = kInner, int kAccumulators>
__device__ __forceinline__ void wgmma(float (&d)[kAccumulators], const std::uint32_t (&a)[4],
                                      std::uint64_t b, bool accumulate_) {
  const int accumulate = accumulate_;
  static_assert(kAccumulators == 24 || kAccumulators == 32 || kAccumulators == 48 ||
                kAccumulators == 64 || kAccumulators == 128);
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  if constexpr (kAccumulators == 24) {
    asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %29, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n48k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23}, "
      "{%24, %25, %26, %27}, %28, p, 1, 1, %30;\n}"
      : XPU_D8(0), XPU_D8(8), XPU_D8(16)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(static_cast<int>(kMajorB)));
  } else if constexpr (kAccumulators == 32) {
    asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, "
      "%30, %31}, "
      "{%32, %33, %34, %35}, %36, p, 1, 1, %38;\n}"
      : XPU_D8(0), XPU_D8(8), XPU_D8(16), XPU_D8(24)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(static_cast<int>(kMajorB)));
  } else if constexpr (kAccumulators == 48) {
    asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %53, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n96k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, "
      "%30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, "
      "%44, %45, %46, %47}, "
      "{%48, %49, %50, %51}, %52, p, 1, 1, %54;\n}"
      : XPU_D8(0), XPU_D8(8), XPU_D8(16), XPU_D8(24), XPU_D8(32), XPU_D8(40)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(static_cast<int>(kMajorB)));
  } else if constexpr (kAccumulators == 64) {
    asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, "
      "%30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, "
      "%44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, "
      "%58, %59, %60, %61, %62, %63}, "
      "{%64, %65, %66, %67}, %68, p, 1, 1, %70;\n}"
      : XPU_D8(0), XPU_D8(8), XPU_D8(16), XPU_D8(24), XPU_D8(32), XPU_D8(40), XPU_D8(48),
        XPU_D8(56)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(static_cast<int>(kMajorB)));
  } else if constexpr (kAccumulators == 128) {
    asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %133, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, "
      "%30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, "
      "%44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, "
      "%58, %59, %60, %61, %62, %63, %64, %65, %66, %67, %68, %69, %70, %71, "
      "%72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, "
      "%86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, "
      "%100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
      "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, "
      "%124, %125, %126, %127}, "
      "{%128, %129, %130, %131}, %132, p, 1, 1, %134;\n}"
      : XPU_D8(0), XPU_D8(8), XPU_D8(16), XPU_D8(24), XPU_D8(32), XPU_D8(40), XPU_D8(48),
        XPU_D8(56), XPU_D8(64), XPU_D8(72), XPU_D8(80), XPU_D8(88), XPU_D8(96), XPU_D8(104),
        XPU_D8(112), XPU_D8(120)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(static_cast<int>(kMajorB)));
  }
#else
  (void)a, (void)b, (void)accumulate;
  __trap();
#endif
}

#undef XPU_D8
#undef XPU_D4

}  // namespace xpu
