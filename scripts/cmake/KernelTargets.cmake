# lh_kernel_test(name KERNELS a.cu ... SOURCES a_test.cpp ...): builds the kernels for the emulator
# and registers the doctest cases three times:
#   plain  every order of threads and blocks, asynchronous effects early, late and at random
#   asan   address and undefined-behaviour sanitizers around buffers of exact size
#   race   the race detector (kernels/xpu/emu/race.h)
# KERNELS are relative to kernels/, or to the calling folder when they start with ./
# With nvcc it also makes device_test_<name> (not part of all): the same tests for a real GPU, unless
# EMULATOR_ONLY.
# Tests are compiled once and without sanitizers: what is sanitized is the kernels and the emulator.
find_program(LH_NVCC nvcc HINTS /usr/local/cuda/bin)

if(LH_SANITIZE)
  set(LH_KERNEL_BUILDS plain)  # the whole tree is sanitized already
else()
  set(LH_KERNEL_BUILDS plain asan race)
endif()

function(lh_kernel_test name)
  cmake_parse_arguments(ARG "EMULATOR_ONLY" "" "SOURCES;KERNELS" ${ARGN})
  set(kernel_paths)
  foreach(kernel ${ARG_KERNELS})
    if(kernel MATCHES "^\\./")
      list(APPEND kernel_paths ${CMAKE_CURRENT_SOURCE_DIR}/${kernel})
    else()
      list(APPEND kernel_paths ${CMAKE_SOURCE_DIR}/kernels/${kernel})
    endif()
  endforeach()
  set(cases kernel_test_${name}_cases)
  add_library(${cases} OBJECT ${ARG_SOURCES})
  target_include_directories(${cases} PRIVATE ${CMAKE_SOURCE_DIR}/tests)
  target_compile_definitions(${cases} PRIVATE LH_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  target_link_libraries(${cases} PRIVATE lh_flags xpu_emu)
  target_compile_options(${cases} PRIVATE -O3)  # references are loops over fp64
  foreach(build ${LH_KERNEL_BUILDS})
    # A .cu is compiled as C++ through a file that includes it; its flags depend on the build.
    set(wrappers)
    foreach(kernel ${kernel_paths})
      get_filename_component(stem ${kernel} NAME_WE)
      set(wrapper ${CMAKE_CURRENT_BINARY_DIR}/${build}/${name}_${stem}.cpp)
      file(CONFIGURE OUTPUT ${wrapper} CONTENT "#include \"${kernel}\"\n")
      list(APPEND wrappers ${wrapper})
    endforeach()
    set(target kernel_test_${name}_${build})
    # Kernels first: of an inline function that both have, the linker takes the sanitized one.
    add_executable(${target} ${wrappers} $<TARGET_OBJECTS:${cases}>
      $<TARGET_OBJECTS:kernel_test_main> $<TARGET_OBJECTS:kernel_test_build_${build}>)
    target_include_directories(${target} PRIVATE ${CMAKE_SOURCE_DIR}/tests)
    target_link_libraries(${target} PRIVATE lh_flags)
    target_compile_options(${target} PRIVATE -O2)
    if(build STREQUAL asan)
      target_link_libraries(${target} PRIVATE xpu_emu_asan)
    else()
      target_link_libraries(${target} PRIVATE xpu_emu)
    endif()
    if(build STREQUAL race)
      set_source_files_properties(${wrappers} PROPERTIES COMPILE_OPTIONS "-fsanitize=thread;-g1")
    endif()
    doctest_discover_tests(${target} TEST_PREFIX "kernels/${name} ${build}: "
      PROPERTIES LABELS "kernel" TIMEOUT 300)
  endforeach()
  if(LH_NVCC AND NOT ARG_EMULATOR_ONLY)
    set(binary ${CMAKE_CURRENT_BINARY_DIR}/device/${name}_test)
    file(MAKE_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/device)
    list(TRANSFORM ARG_SOURCES PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/)
    add_custom_command(OUTPUT ${binary}
      COMMAND ${LH_NVCC} -std=c++20 -O3 -gencode=arch=compute_90a,code=sm_90a -x cu
        -I${CMAKE_SOURCE_DIR} -I${CMAKE_SOURCE_DIR}/tests "-DXPU_BUILD=\\\"device\\\""
        "-DLH_SOURCE_DIR=\\\"${CMAKE_SOURCE_DIR}\\\"" -diag-suppress 20012,177 -o ${binary}
        ${ARG_SOURCES} ${kernel_paths} ${CMAKE_SOURCE_DIR}/tests/support/main.cpp
        ${CMAKE_SOURCE_DIR}/tests/kernels/support/build.cpp
      DEPENDS ${ARG_SOURCES} ${kernel_paths}
      COMMENT "nvcc device_test_${name}" VERBATIM)
    add_custom_target(device_test_${name} DEPENDS ${binary})
    add_dependencies(device_tests device_test_${name})
  endif()
endfunction()
