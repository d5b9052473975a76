// Which Longhand this is.
#pragma once

#include <string>

namespace lh {

/// "0.1.0". All processes of a job must have the same.
std::string program_version();

}  // namespace lh
