// From an exception to what people read and the exit code.
#pragma once

#include <exception>

namespace lh {

int exit_code_of(const std::exception& error);

/// Prints why this process ends, and leaves it as the last words for whoever started it. Returns the exit code.
int report_failure(const std::exception& error);

/// Of a process that ends because of another one, or of a signal that somebody sent, who say so: last words alone.
int report_consequence(const std::exception& error);

}  // namespace lh
