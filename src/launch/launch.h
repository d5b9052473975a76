// longhand launch: starts a program many times, on one or many nodes, as one job.
#pragma once

#include "launch/options.h"

namespace lh {

/// Runs the job to its end on this node. Returns the launcher's exit code: 0 every worker returned
/// 0; 1 the job failed or was stopped without saving; 75 it was stopped after saving (run it again
/// to resume). With propagate_exit_code a failure gives the failed worker's code, or 128 + its
/// signal. ConfigError for wrong options, Error when the program or the network can't be used.
int launch(const LaunchOptions& options);

/// The file that would be run for argv[0] = name: itself if it has a slash, else from PATH. Error
/// when there is none.
std::string find_program(const std::string& name);

}  // namespace lh
