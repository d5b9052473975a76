// The command line: parses arguments, runs a subcommand, turns exceptions into exit codes.
#pragma once

namespace lh {

// Exit codes, as documented in the README and in `longhand --help`.
inline constexpr int kExitOk = 0;
inline constexpr int kExitError = 1;
inline constexpr int kExitUsage = 2;    // wrong options, recipe or other configuration
inline constexpr int kExitStopped = 75;  // EX_TEMPFAIL: a signal came; saved, run again to resume

int run_app(int argc, char** argv);

}  // namespace lh
