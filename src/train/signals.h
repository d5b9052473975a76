// SIGTERM, SIGINT and SIGUSR1 (which schedulers are asked to send before a time limit) as a flag
// that every phase of a run polls: save, then exit.
#pragma once

#include <atomic>

namespace lh {

/// Installs the handlers, and unblocks SIGTERM, which the launcher has blocked until now. A second SIGINT ends the
/// process at once, for an impatient Ctrl-C.
void install_stop_signals();

/// The signal that asked the run to stop, or 0.
int stop_signal();

/// True once a signal came; for waits that take a flag.
const std::atomic<bool>& stop_requested();

/// Sets or clears it by hand (tests).
void set_stop_signal(int signal_number);

}  // namespace lh
