// Steps that processes share on a CUDA device, real or emulated.
#include <doctest/doctest.h>

#include <algorithm>
#include <thread>

#include "runtime/gpu.h"
#include "runtime/memory.h"
#include "team_support.h"

namespace {

using namespace lh;
using namespace lh::test;

/// The emulated ones talk over a fake of NCCL (tests/dist/fake_nccl), whose messages arrive after the call.
TEST_CASE("sums on the second stream while backward runs change no bit of the training on a device") {
  if (gpu::device_count() == 0) {
    MESSAGE("SKIPPED: no CUDA device (" << gpu::unavailable_reason() << ")");
    return;
  }
  std::vector<Device> devices(2, {DeviceKind::kCuda, 0});
  if (gpu::device_count() > 1 || gpu::device_info(devices[0]).emulated) {
    devices[1].index = 1;
    ::setenv("FAKE_NCCL_LAG", "2", 1);
  } else if (nccl_unavailable().empty()) {  // which refuses two ranks of one process on one device
    MESSAGE("SKIPPED: NCCL wants a device for each rank, and there is one");
    return;
  }
  for (const DType dtype : {DType::kF32, DType::kBF16})
    for (const int64_t zero : {0, 1}) {
      CAPTURE(zero);
      TeamSetup setup;
      setup.model.head_dim = 16;  // which kernels for bf16 have
      setup.steps = 2;
      setup.sequences = 4;
      setup.bucket_bytes = 2000;  // a dozen buckets
      setup.recipe.optim.learning_rate = 0.01;
      setup.recipe.parallel.zero = zero;
      std::vector<std::vector<TeamRun>> runs(2, std::vector<TeamRun>(2));
      for (const bool beside : {false, true}) {
        setup.recipe.parallel.overlap = beside;
        on_teams(2, setup.recipe.parallel, [&](const Team& team) {
          Decoder model(setup.model, dtype, 3, devices[static_cast<size_t>(team.rank())]);
          const auto optimizer = make_optimizer(setup.recipe.optim, model.parameters(), team.shard_place());
          TeamRun& run = runs[beside ? 1 : 0][static_cast<size_t>(team.rank())];
          train_steps(model, *optimizer, setup, team, 0, setup.steps, run);
          for (const auto& parameter : model.parameters().all())
            run.copies.push_back(to_doubles(parameter->variable.value().to(kCpuDevice)));
        }, devices);
      }
      for (size_t r = 0; r < 2; ++r) {
        CHECK(runs[0][r] == runs[1][r]);
        CHECK(runs[0][r].losses.size() == 2);
      }
      CHECK(runs[0][0].copies == runs[0][1].copies);
    }
}

TEST_CASE("blocks of one stream are never those of the other, and events order the two") {
  if (gpu::device_count() == 0) {
    MESSAGE("SKIPPED: no CUDA device (" << gpu::unavailable_reason() << ")");
    return;
  }
  const Device device{DeviceKind::kCuda, 0};
  void* first = gpu::allocate(device, 1000, MemoryOwner::kData);
  const gpu::Stream main = gpu::stream(device);
  gpu::release(device, first, 1000, MemoryOwner::kData);
  gpu::Event ready(device), done(device);
  ready.record();
  void* beside = nullptr;
  std::jthread([&] {
    const gpu::SideStream side(device);
    ready.wait();
    CHECK(gpu::stream(device) != main);
    beside = gpu::allocate(device, 1000, MemoryOwner::kData);
    gpu::fill_bytes(device, beside, 7, 1000);
    done.record();
  }).join();
  CHECK(gpu::stream(device) == main);
  CHECK(beside != first);
  done.wait();
  std::vector<unsigned char> host(1000);
  gpu::copy_out(device, host.data(), beside, 1000);
  CHECK(std::all_of(host.begin(), host.end(), [](unsigned char byte) { return byte == 7; }));
  const int64_t before = memory_report(DeviceKind::kCuda).total_now;
  gpu::release(device, beside, 1000, MemoryOwner::kData);  // from the main stream's thread, back to its own arena
  CHECK(memory_report(DeviceKind::kCuda).total_now == before - 1000);
  void* again = gpu::allocate(device, 1000, MemoryOwner::kData);
  CHECK(again != beside);
  gpu::release(device, again, 1000, MemoryOwner::kData);
}

}  // namespace
