// The NCCL transport over a fake of NCCL: ranks are threads, each with an emulated device of its own. What it sends is
// compared with a plain computation; what it does when NCCL says nothing, or says no, is checked by its words.
#include <doctest/doctest.h>

#include <atomic>
#include <thread>

#include "base/timer.h"
#include "collectives.h"
#include "dist/nccl_transport.h"
#include "fake_nccl/fake.h"
#include "runtime/gpu.h"

using namespace lh;
using namespace lh::test;
using namespace std::chrono_literals;

namespace {

Device device_of(int rank) {
  return {DeviceKind::kCuda, static_cast<int8_t>(rank)};
}

/// Calls function(transport, rank) on `size` threads, over NCCL alone.
void on_transports(int size, Store::Timeout timeout, const std::function<void(Transport&, int)>& function) {
  const std::shared_ptr<Store> store = make_memory_store();
  std::vector<std::jthread> threads;
  for (int rank = 0; rank < size; ++rank)
    threads.emplace_back([&, rank] { function(*connect_nccl(store, rank, size, device_of(rank), timeout), rank); });
}

/// Trades one number with the other of two ranks.
struct Trade {
  explicit Trade(int rank)
      : mine(numbers(1, DType::kF32, rank).to(device_of(rank))),
        theirs(Tensor::zeros({1}, DType::kF32, device_of(rank))),
        other(1 - rank) {}
  void exchange(Transport& transport) {
    const Transfer out{other, mine.raw(), mine.bytes()}, in{other, theirs.raw(), theirs.bytes()};
    transport.exchange({&out, 1}, {&in, 1});
  }
  Tensor mine, theirs;
  int other;
};

std::string error_of(const std::function<void()>& function) {
  try {
    function();
  } catch (const CommError& error) {
    return error.what();
  }
  return "no error";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// doctest's checks are not for several threads at once.
struct Said {
  std::string by[2];
};

}  // namespace

TEST_CASE("every collective over a fake NCCL equals a plain computation and all communicators are destroyed") {
  fake_nccl().reset();
  for (const int size : {2, 3, 4})
    on_ranks(size, [](Peers& job) {
      const Device device = device_of(job.rank());
      job.use_device(device);
      const auto comm = job.world("test");
      constexpr DType kDeviceTypes[] = {DType::kF32, DType::kBF16};
      every_collective(*comm, kDeviceTypes, device);
      bf16_sums(*comm, device);
      comm->barrier("done");
    });
  CHECK(fake_nccl().destroyed == 2 + 3 + 4);
  CHECK(fake_nccl().aborted == 0);
  CHECK(fake_nccl().alive == 0);
}

TEST_CASE("a group whose start over NCCL never ends is given up in time") {
  fake_nccl().reset();
  fake_nccl().absent = 1;
  Said said;
  const std::shared_ptr<Store> store = make_memory_store();
  {
    std::vector<std::jthread> threads;
    for (int rank = 0; rank < 2; ++rank)
      threads.emplace_back([&, rank] {
        said.by[rank] = error_of([&] { connect_nccl(store, rank, 2, device_of(rank), 300ms); });
      });
  }
  for (const std::string& text : said.by)
    CHECK_MESSAGE(contains(text, "start of the group is not done after 0.3 s"), text);
  CHECK(fake_nccl().aborted == 2);
  CHECK(fake_nccl().alive == 0);
}

TEST_CASE("a job that fails while a group starts over NCCL ends the start with its reason") {
  fake_nccl().reset();
  fake_nccl().absent = 1;
  Said said;
  const Timer timer;
  on_ranks(3, [&](Peers& job) {
    if (job.rank() == 2) {
      std::this_thread::sleep_for(200ms);
      CHECK(job.tells("disk full", 1));
      return;
    }
    job.use_device(device_of(job.rank()));
    try {
      job.group("pair", {0, 1});
    } catch (const PeerFailure& failure) {
      said.by[job.rank()] = failure.what();
    }
  });
  CHECK(timer.seconds() < 15);  // and not after the 30 s of the group's own limit
  for (const std::string& text : said.by) CHECK_MESSAGE(contains(text, "disk full"), text);
  CHECK(fake_nccl().aborted == 2);
  CHECK(fake_nccl().alive == 0);
}

TEST_CASE("an exchange that NCCL never finishes on the device is aborted and its rank told") {
  fake_nccl().reset();
  fake_nccl().silent = 1;
  Said said;
  std::atomic<int> gone{0};
  on_transports(2, 400ms, [&](Transport& transport, int rank) {
    Trade trade(rank);
    trade.exchange(transport);   // returns: it is only enqueued
    trade.theirs.to(kCpuDevice);  // waits for the stream, which the abort frees
    said.by[rank] = error_of([&] { transport.check(); });
    for (++gone; gone < 2;) std::this_thread::sleep_for(1ms);
  });
  // Both wait: the one whose device does nothing, and the one that nothing reaches.
  for (const std::string& text : said.by) CHECK_MESSAGE(contains(text, "an exchange is not done after 0.4 s"), text);
  CHECK(fake_nccl().aborted == 2);
  CHECK(fake_nccl().alive == 0);
}

TEST_CASE("NCCL's own error ends an exchange long before its time") {
  fake_nccl().reset();
  fake_nccl().silent = 1;
  fake_nccl().cut_off = 0;
  Said said;
  on_transports(2, 60s, [&](Transport& transport, int rank) {
    if (rank == 1) {
      transport.abandon();
      said.by[1] = error_of([&] { transport.check(); });
      return;
    }
    Trade trade(rank);
    trade.exchange(transport);
    trade.theirs.to(kCpuDevice);
    said.by[0] = error_of([&] { trade.exchange(transport); });
  });
  CHECK_MESSAGE(contains(said.by[0], "an exchange: remote process exited"), said.by[0]);
  CHECK_MESSAGE(contains(said.by[1], "given up"), said.by[1]);
  CHECK(fake_nccl().aborted == 2);
}

TEST_CASE("a group that another thread gives up wakes an exchange that waits for NCCL") {
  fake_nccl().reset();
  Said said;
  std::atomic<bool> connected[2] = {};
  on_transports(2, 60s, [&](Transport& transport, int rank) {
    connected[rank] = true;
    while (!connected[1 - rank]) std::this_thread::sleep_for(1ms);
    if (rank == 1) return transport.abandon();
    fake_nccl().stuck = 0;
    const std::jthread other([&] {
      std::this_thread::sleep_for(50ms);
      transport.abandon();
    });
    Trade trade(rank);
    try {
      trade.exchange(transport);
    } catch (const CommAbandoned& error) {
      said.by[0] = error.what();
    }
  });
  CHECK_MESSAGE(contains(said.by[0], "given up"), said.by[0]);
  CHECK(fake_nccl().aborted == 2);
  CHECK(fake_nccl().alive == 0);
}

TEST_CASE("a call that NCCL refuses leaves no group open and no communicator") {
  fake_nccl().reset();
  fake_nccl().refused = 1;
  Said said;
  on_transports(2, 60s, [&](Transport& transport, int rank) {
    if (rank == 1) return transport.abandon();
    Trade trade(rank);
    said.by[0] = error_of([&] { trade.exchange(transport); });
    CHECK(error_of([&] { trade.exchange(transport); }) == said.by[0]);
  });
  CHECK_MESSAGE(contains(said.by[0], "an exchange: invalid argument"), said.by[0]);
  CHECK(fake_nccl().open_groups == 0);
  CHECK(fake_nccl().alive == 0);
}

TEST_CASE("a rank whose device stops in a collective ends the job with one cause") {
  fake_nccl().reset();
  std::atomic<int> own{0}, told{0}, passed{0};
  on_ranks(
      2,
      [&](Peers& job) {
        const Device device = device_of(job.rank());
        job.use_device(device);
        const auto comm = job.world("test");
        fake_nccl().silent = 1;
        Tensor t = numbers(8, DType::kF32, job.rank()).to(device);
        try {
          comm->all_reduce(t, ReduceOp::kSum, "grad all-reduce");
          t.to(kCpuDevice);
          comm->barrier("after it");
          ++passed;
        } catch (const PeerFailure&) {
          ++told;
        } catch (const CommError&) {
          ++own;
        }
      },
      loopback(1s));
  CHECK(passed == 0);
  CHECK(own == 1);
  CHECK(told == 1);
  CHECK(fake_nccl().alive == 0);
}
