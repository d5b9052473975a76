# lh_simd_sources(target file...): compiles each file once per instruction-set level with
# LH_SIMD_NAMESPACE set to the namespace of that level (src/backend/cpu/simd.h).
function(lh_simd_sources target)
  set(levels generic)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    list(APPEND levels avx2 avx512)
  endif()
  set(flags_generic "")
  set(flags_avx2 -mavx2 -mfma -mf16c)
  set(flags_avx512 -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl
    -mprefer-vector-width=512)
  foreach(level ${levels})
    set(object ${target}_${level})
    add_library(${object} OBJECT ${ARGN})
    target_link_libraries(${object} PRIVATE lh_flags OpenMP::OpenMP_CXX)
    # -ffast-math is left out on purpose: kernels must keep NaN and infinity visible.
    # -Wno-psabi: vector types never cross the boundary of these files.
    # -Wno-(maybe-)uninitialized: g++ 12's own AVX-512 headers trip them (GCC bug 105593).
    target_compile_options(${object} PRIVATE -O3 -Wno-psabi -Wno-maybe-uninitialized
      -Wno-uninitialized ${flags_${level}} -fno-trapping-math -ffp-contract=fast)
    target_compile_definitions(${object} PRIVATE LH_SIMD_NAMESPACE=simd_${level})
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:${object}>)
  endforeach()
endfunction()
