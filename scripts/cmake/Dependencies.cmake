# System packages only: nothing is downloaded at configure time and nothing is vendored.
# scripts/setup.sh installs them all on Debian and Ubuntu.
find_package(fmt REQUIRED)
find_package(Threads REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS CXX)
find_package(Eigen3 3.4 REQUIRED NO_MODULE)
find_package(CLI11 REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(ZLIB REQUIRED)
find_package(HDF5 REQUIRED COMPONENTS C)
find_package(doctest QUIET)

find_package(PkgConfig REQUIRED)
pkg_check_modules(pcre2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(xxhash REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(utf8proc REQUIRED IMPORTED_TARGET libutf8proc)

# Debian's dnnl-config.cmake demands OpenCL headers that the CPU engine never uses, so the
# library is looked up by name. Without it the CPU backend multiplies through Eigen.
find_library(LH_DNNL_LIBRARY dnnl)
find_path(LH_DNNL_INCLUDE_DIR oneapi/dnnl/dnnl.hpp)
if(LH_DNNL_LIBRARY AND LH_DNNL_INCLUDE_DIR)
  set(LH_WITH_ONEDNN ON)
  add_library(lh_onednn INTERFACE)
  target_include_directories(lh_onednn SYSTEM INTERFACE ${LH_DNNL_INCLUDE_DIR})
  target_link_libraries(lh_onednn INTERFACE ${LH_DNNL_LIBRARY})
else()
  set(LH_WITH_ONEDNN OFF)
  message(WARNING "oneDNN not found: matrix products use Eigen (slower; bf16 without AMX)")
endif()

# Debian's package has headers and a library; its CMake files name a target that is not exported everywhere.
find_library(LH_GLOO_LIBRARY gloo REQUIRED)
find_path(LH_GLOO_INCLUDE_DIR gloo/context.h REQUIRED)
add_library(lh_gloo INTERFACE)
target_include_directories(lh_gloo SYSTEM INTERFACE ${LH_GLOO_INCLUDE_DIR})
target_link_libraries(lh_gloo INTERFACE ${LH_GLOO_LIBRARY})
