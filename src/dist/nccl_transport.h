// NCCL between the CUDA devices of a group, one process per device.
#pragma once

#include <memory>
#include <string>

#include "dist/communicator.h"
#include "dist/store.h"

namespace lh {

/// "" when this build has NCCL, else why it has not.
const std::string& nccl_unavailable();

/// All processes of the group call it; the store (under a prefix of the group's own) carries the identity. Work is
/// enqueued on the device's stream: exchange() returns before it is done, and its results are used in
/// stream order. Whatever is not done in `timeout`, the start of the group too, is aborted on the device, so that
/// nobody waits for it any longer, and is a CommError from then on; so is an error of NCCL, with its own words.
std::shared_ptr<Transport> connect_nccl(std::shared_ptr<Store> store, int rank, int size,
                                        Device device, Store::Timeout timeout);

}  // namespace lh
