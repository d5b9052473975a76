// Where this machine is in its network.
#pragma once

#include <string>

namespace lh {

/// The first address of an interface other than loopback, as digits, of version 4 before version 6; "" when no other
/// host can reach this one.
std::string interface_address();

}  // namespace lh
