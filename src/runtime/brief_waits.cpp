#include "runtime/brief_waits.h"

#include <unistd.h>

#include <cstdlib>

namespace lh {

void start_again_with_brief_waits(char** argv) {
  if (std::getenv("GOMP_SPINCOUNT") != nullptr || std::getenv("OMP_WAIT_POLICY") != nullptr) return;
  if (setenv("GOMP_SPINCOUNT", "5000", 1) != 0) return;
  execv("/proc/self/exe", argv);  // returns only on failure: then threads wait as they always did
}

}  // namespace lh
