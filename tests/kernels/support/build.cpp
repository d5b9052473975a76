#include "kernels/support/build.h"

std::string lh::test::kernel_build() {
  return XPU_BUILD;
}
