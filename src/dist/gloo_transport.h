// Gloo's TCP connections between all processes of a group.
#pragma once

#include <memory>
#include <string>

#include "dist/communicator.h"
#include "dist/store.h"

namespace lh {

struct GlooOptions {
  std::string host;  // of this process, as the others reach it; empty: Peers finds it (own_address.h)
  std::chrono::milliseconds timeout{300000};  // of one exchange, and of finding each other
};

/// Connects `size` processes that share the store (under a prefix of the group's own). CommError when one does
/// not come in time.
std::shared_ptr<Transport> connect_gloo(std::shared_ptr<Store> store, int rank, int size,
                                        const GlooOptions& options);

}  // namespace lh
