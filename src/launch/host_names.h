// Names of hosts: Slurm's compressed lists, and the order in which people count machines.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lh {

/// "gpu[01-03,7],login" -> gpu01 gpu02 gpu03 gpu7 login. ConfigError when it's malformed.
std::vector<std::string> expand_host_list(std::string_view list);

/// Slurm's counts per node, "4(x2),3" -> 4 4 3. ConfigError when it's malformed.
std::vector<int64_t> expand_counts(std::string_view counts);

/// True when a comes before b; runs of digits compare as numbers: node2 before node10.
bool natural_less(std::string_view a, std::string_view b);

}  // namespace lh
