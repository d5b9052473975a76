// Point-to-point messages in one group call, as NCCL's own all-to-all is made. A peer that dies leaves them
// unfinished on the device: the communicator's checks over host memory notice it first, and the destructor aborts
// what is left.
#include "dist/nccl_transport.h"

#include <nccl.h>

#include "runtime/gpu.h"

namespace lh {
namespace {

void check(ncclResult_t code, const char* what) {
  if (code == ncclSuccess || code == ncclInProgress) return;
  fail<CommError>("[nccl] {}: {} ({})", what, ncclGetErrorString(code), ncclGetLastError(nullptr));
}

class NcclTransport final : public Transport {
 public:
  NcclTransport(Store& store, int rank, int size, Device device, Store::Timeout timeout)
      : device_(device) {
    ncclUniqueId identity{};
    if (rank == 0) {
      check(ncclGetUniqueId(&identity), "identity of the group");
      store.set("nccl", std::string(identity.internal, sizeof identity.internal));
    } else {
      const std::string bytes = store.get("nccl", timeout);
      if (bytes.size() != sizeof identity.internal)
        fail<CommError>("[nccl] the identity of the group has {} bytes, expected {}", bytes.size(),
                        sizeof identity.internal);
      bytes.copy(identity.internal, bytes.size());
    }
    check(ncclCommInitRank(&comm_, size, identity, rank), "start of the group");
  }
  ~NcclTransport() override { ncclCommAbort(comm_); }

  const char* name() const override { return "nccl"; }
  bool on_device() const override { return true; }

  void exchange(std::span<const Transfer> out, std::span<const Transfer> in) override {
    ncclResult_t earlier = ncclSuccess;
    check(ncclCommGetAsyncError(comm_, &earlier), "state of the group");
    check(earlier, "an earlier exchange");
    const gpu::Stream stream = gpu::stream(device_);
    check(ncclGroupStart(), "group");
    for (const Transfer& transfer : out)
      check(ncclSend(transfer.data, transfer.bytes, ncclChar, transfer.peer, comm_, stream), "send");
    for (const Transfer& transfer : in)
      check(ncclRecv(transfer.data, transfer.bytes, ncclChar, transfer.peer, comm_, stream),
            "receive");
    check(ncclGroupEnd(), "group");
  }

 private:
  Device device_;
  ncclComm_t comm_ = nullptr;
};

}  // namespace

const std::string& nccl_unavailable() {
  static const std::string none;
  return none;
}

std::shared_ptr<Transport> connect_nccl(std::shared_ptr<Store> store, int rank, int size,
                                        Device device, Store::Timeout timeout) {
  return std::make_shared<NcclTransport>(*store, rank, size, device, timeout);
}

}  // namespace lh
