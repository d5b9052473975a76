// Alone in its file, so that a test can link a program of another version.
#include "cli/version.h"

namespace lh {

std::string program_version() {
  return LH_VERSION;
}

}  // namespace lh
