// Builds without NCCL: device tensors travel through host memory.
#include "dist/nccl_transport.h"

namespace lh {

const std::string& nccl_unavailable() {
  static const std::string reason = "this build has no NCCL";
  return reason;
}

std::shared_ptr<Transport> connect_nccl(std::shared_ptr<Store>, int, int, Device, Store::Timeout) {
  fail<CommError>("[nccl] {}", nccl_unavailable());
}

}  // namespace lh
