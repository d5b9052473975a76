// The options of `longhand launch`, torchrun's by name, and where they end and the program begins.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "launch/options.h"

namespace CLI {
class App;
}

namespace lh {

/// Adds the options to the subcommand; parsing fills the result.
std::shared_ptr<LaunchOptions> add_launch_options(CLI::App& command);

/// argv after "launch", cut in two: own options, with torchrun's underscores as dashes, and the
/// program with its arguments, which begins after "--" or with the first word that is neither an
/// option nor an option's value.
struct LaunchWords {
  std::vector<std::string> own;
  std::vector<std::string> program;
};
LaunchWords split_launch_words(const CLI::App& command, const std::vector<std::string>& words);

}  // namespace lh
