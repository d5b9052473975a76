#include "fake.h"

#include <nccl.h>

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/xpu/emu/stream.h"

namespace {

using lh::test::fake_nccl;

std::chrono::milliseconds lag() {
  static const char* text = std::getenv("FAKE_NCCL_LAG");
  return std::chrono::milliseconds(text == nullptr ? 0 : std::atoi(text));
}

/// The processes with one identity.
struct Group {
  std::mutex mutex;
  std::condition_variable changed;
  int size = 0, here = 0, leaving = 0;
  std::map<std::pair<int, int>, std::deque<std::string>> mail;  // by sender and receiver
};

struct Message {
  char* data;
  size_t bytes;
  int peer;
};

/// One group call.
struct Exchange {
  std::vector<Message> out, in;
  CUstream_st* stream = nullptr;
};

}  // namespace

struct FakeNcclComm {
  std::shared_ptr<Group> group;
  int rank = 0;
  std::deque<Exchange> given;                    // guarded by group->mutex, as all below
  bool aborted = false, left = false, at_work = false;
  std::jthread worker;

  bool is(const std::atomic<int>& whom) const { return whom == rank; }

  void work() {
    std::unique_lock lock(group->mutex);
    for (;;) {
      group->changed.wait(lock, [&] { return aborted || !given.empty(); });
      if (given.empty()) return;
      Exchange exchange = std::move(given.front());
      given.pop_front();
      at_work = true;
      perform(exchange, lock);
      at_work = false;
      --exchange.stream->outside;
      exchange.stream->outside.notify_all();
    }
  }

  void perform(Exchange& exchange, std::unique_lock<std::mutex>& lock) {
    group->changed.wait_for(lock, lag(), [&] { return aborted; });
    group->changed.wait(lock, [&] { return aborted || !is(fake_nccl().silent); });
    if (aborted) return;
    for (const Message& m : exchange.out) group->mail[{rank, m.peer}].emplace_back(m.data, m.bytes);
    group->changed.notify_all();
    for (const Message& m : exchange.in) {
      auto& box = group->mail[{m.peer, rank}];
      group->changed.wait(lock, [&] { return aborted || !box.empty(); });
      if (aborted) return;
      if (box.front().size() != m.bytes) {
        std::fprintf(stderr, "fake NCCL: %zu bytes arrive, %zu expected\n", box.front().size(), m.bytes);
        std::abort();
      }
      std::memcpy(m.data, box.front().data(), m.bytes);
      box.pop_front();
    }
  }

  /// Ends the worker.
  void stop() {
    {
      const std::lock_guard lock(group->mutex);
      aborted = true;
    }
    group->changed.notify_all();
    worker.join();
  }
};

namespace {

std::mutex registry_mutex;
std::map<std::string, std::weak_ptr<Group>> groups;
std::set<FakeNcclComm*> communicators;

thread_local int depth = 0;
thread_local Exchange in_group;
thread_local FakeNcclComm* of_group = nullptr;

void require_alive(FakeNcclComm* comm, const char* call) {
  const std::lock_guard lock(registry_mutex);
  if (communicators.contains(comm)) return;
  std::fprintf(stderr, "fake NCCL: %s of a communicator that is none any more\n", call);
  std::abort();
}

void forget(FakeNcclComm* comm) {
  comm->stop();
  {
    const std::lock_guard lock(registry_mutex);
    communicators.erase(comm);
  }
  --fake_nccl().alive;
  delete comm;
}

ncclResult_t add(std::vector<Message>& list, const Message& message, FakeNcclComm* comm, CUstream_st* stream) {
  require_alive(comm, "a message");
  if (depth == 0 || message.peer < 0 || message.peer >= comm->group->size) return ncclInvalidArgument;
  of_group = comm;
  in_group.stream = stream;
  list.push_back(message);
  return ncclSuccess;
}

}  // namespace

lh::test::FakeNccl& lh::test::fake_nccl() {
  static FakeNccl fake;
  return fake;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  static std::atomic<int> next{0};
  std::memset(id, 0, sizeof *id);
  std::snprintf(id->internal, sizeof id->internal, "group %d", next++);
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int size, ncclUniqueId id, int rank, ncclConfig_t* config) {
  if (config->blocking != 0) return ncclInvalidArgument;  // it would wait without an end
  auto made = std::make_unique<FakeNcclComm>();
  {
    const std::lock_guard lock(registry_mutex);
    std::weak_ptr<Group>& known = groups[id.internal];
    made->group = known.lock();
    if (made->group == nullptr) known = made->group = std::make_shared<Group>();
    communicators.insert(made.get());
  }
  made->rank = rank;
  {
    const std::lock_guard lock(made->group->mutex);
    made->group->size = size;
    if (fake_nccl().absent != rank) ++made->group->here;
  }
  made->worker = std::jthread([own = made.get()] { own->work(); });
  ++fake_nccl().alive;
  *comm = made.release();
  return ncclInProgress;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  require_alive(comm, "ncclCommFinalize");
  const std::lock_guard lock(comm->group->mutex);
  comm->left = true;
  ++comm->group->leaving;
  return ncclInProgress;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  require_alive(comm, "ncclCommDestroy");
  ++fake_nccl().destroyed;
  forget(comm);
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  require_alive(comm, "ncclCommAbort");
  ++fake_nccl().aborted;
  forget(comm);
  return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* state) {
  require_alive(comm, "ncclCommGetAsyncError");
  const std::lock_guard lock(comm->group->mutex);
  const bool waits = comm->group->here < comm->group->size || (comm->left && comm->group->leaving < comm->group->size);
  *state = waits || comm->is(fake_nccl().stuck) ? ncclInProgress : ncclSuccess;
  if (comm->at_work && comm->is(fake_nccl().cut_off)) *state = ncclRemoteError;
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t code) {
  return code == ncclRemoteError ? "remote process exited or there was a network error" : "invalid argument";
}

const char* ncclGetLastError(ncclComm_t) {
  return "fake";
}

ncclResult_t ncclGroupStart() {
  ++depth;
  ++fake_nccl().open_groups;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  --depth;
  --fake_nccl().open_groups;
  Exchange exchange = std::exchange(in_group, {});
  FakeNcclComm* comm = std::exchange(of_group, nullptr);
  if (comm == nullptr) return ncclSuccess;
  ++exchange.stream->outside;
  {
    const std::lock_guard lock(comm->group->mutex);
    comm->given.push_back(std::move(exchange));
  }
  comm->group->changed.notify_all();
  return ncclInProgress;
}

ncclResult_t ncclSend(const void* data, size_t count, ncclDataType_t, int peer, ncclComm_t comm, cudaStream_t stream) {
  if (fake_nccl().refused == peer) return ncclInvalidArgument;
  return add(in_group.out, {static_cast<char*>(const_cast<void*>(data)), count, peer}, comm, stream);
}

ncclResult_t ncclRecv(void* data, size_t count, ncclDataType_t, int peer, ncclComm_t comm, cudaStream_t stream) {
  return add(in_group.in, {static_cast<char*>(data), count, peer}, comm, stream);
}
