# LH_CUDA: how the CUDA backend is built.
#   AUTO      ON when the toolkit (nvcc, cuBLASLt) and a driver are here, else OFF
#   ON        kernels through nvcc for sm_80 and sm_90a, also to run elsewhere
#   OFF       the CPU backend only
#   EMULATED  the CUDA backend with its kernels in the emulator, for tests without a device
set(LH_CUDA "AUTO" CACHE STRING "CUDA backend: AUTO, ON, OFF or EMULATED")
set_property(CACHE LH_CUDA PROPERTY STRINGS AUTO ON OFF EMULATED)
if(LH_CUDA STREQUAL "AUTO" AND NOT EXISTS /proc/driver/nvidia/version AND NOT EXISTS /dev/dxg)
  set(LH_CUDA OFF)  # no driver (the second is WSL's)
endif()
if(LH_CUDA STREQUAL "AUTO" OR LH_CUDA STREQUAL "ON")
  find_package(CUDAToolkit QUIET)
  find_program(LH_NVCC nvcc HINTS /usr/local/cuda/bin ${CUDAToolkit_BIN_DIR})
  if(LH_NVCC AND TARGET CUDA::cublasLt AND TARGET CUDA::cudart_static)
    set(LH_CUDA ON)
    set(CMAKE_CUDA_COMPILER ${LH_NVCC})
    if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
      set(CMAKE_CUDA_ARCHITECTURES 80-real 90a-real)
    endif()
    if(CMAKE_CXX_COMPILER_LAUNCHER)
      set(CMAKE_CUDA_COMPILER_LAUNCHER ${CMAKE_CXX_COMPILER_LAUNCHER})
    endif()
    enable_language(CUDA)
    # CMake 3.25 does not know this compiler's C++20, so the flag is given as it is.
    set(CMAKE_CUDA_FLAGS "-std=c++20")
  elseif(LH_CUDA STREQUAL "ON")
    message(FATAL_ERROR "LH_CUDA=ON needs nvcc, cudart and cuBLASLt of the CUDA toolkit; none found")
  else()
    set(LH_CUDA OFF)
  endif()
endif()
message(STATUS "CUDA backend: ${LH_CUDA}")
