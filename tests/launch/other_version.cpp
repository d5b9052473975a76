// With tools/longhand.cpp a Longhand that differs in its version alone.
#include "cli/version.h"

namespace lh {

std::string program_version() {
  return "0.0.1";
}

}  // namespace lh
