// `longhand doctor`: what this machine has and what that enables.
#pragma once

#include <string>

namespace lh {

/// The report, one fact per line.
std::string doctor_report();

}  // namespace lh
