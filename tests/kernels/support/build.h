// Which of the builds of lh_kernel_test (scripts/cmake/KernelTargets.cmake) this binary is.
#pragma once

#include <string>

namespace lh::test {

/// "plain", "asan", "race" or "device". A function of its own source, so that a test is compiled once for all builds.
std::string kernel_build();

}  // namespace lh::test
