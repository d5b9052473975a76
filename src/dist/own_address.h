// Where the other hosts of a job reach this one.
#pragma once

#include <string>

#include "dist/tcp_store.h"

namespace lh {

/// The address from which this host reaches `master`, as digits. Host names are no help: theirs are often
/// unknown to others, or mean 127.0.1.1 at home. Where the master's name does that here, because it is this host (a
/// PyTorchJob tells its master "localhost"), an interface's address is taken. CommError when the name is unknown.
std::string own_address(const Endpoint& master);

/// The host's first address as digits. CommError when it has none.
std::string address_of_host(const std::string& host);

}  // namespace lh
