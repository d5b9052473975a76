// NCCL between several processes that share one GPU. NCCL refuses two ranks of one host on one device, so each
// gets a host identity of its own, and sockets carry the data as between real hosts.
#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdlib>

#include "collectives.h"
#include "runtime/gpu.h"

using namespace lh;
using namespace lh::test;

TEST_CASE("every collective over NCCL on 2 to 4 processes equals a plain computation") {
  if (gpu::device_count() == 0) {
    MESSAGE("skipped: no CUDA device");
    return;
  }
  const Device device{DeviceKind::kCuda, 0};
  for (const int size : {2, 3, 4})
    on_processes(
        "every collective over NCCL*", size,
        [&](Peers& job) {
          ::setenv("NCCL_HOSTID", ("host" + std::to_string(job.rank())).c_str(), 1);
          ::setenv("NCCL_SHM_DISABLE", "1", 1);
          ::setenv("NCCL_P2P_DISABLE", "1", 1);
          ::setenv("NCCL_SOCKET_IFNAME", "lo", 1);
          const auto comm = job.world("test");
          constexpr DType kDeviceTypes[] = {DType::kF32, DType::kBF16};
          every_collective(*comm, kDeviceTypes, device);
          bf16_sums(*comm, device);
          comm->barrier("done");
        },
        device);
}
