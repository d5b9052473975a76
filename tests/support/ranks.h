// Runs a function on several ranks: threads of this process over real connections, or processes.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <exception>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "dist/peers.h"

namespace lh::test {

inline GlooOptions loopback(std::chrono::milliseconds timeout = std::chrono::seconds(30)) {
  return {"127.0.0.1", timeout};
}

inline PeerPlace place_of(int rank, int size, Device device = {}) {
  PeerPlace place;
  place.rank = rank;
  place.size = size;
  place.device = device;
  return place;
}

/// Calls function(job) on `size` threads that share a store; throws the first exception of the lowest rank.
inline void on_ranks(int size, const std::function<void(Peers&)>& function,
                     const GlooOptions& gloo = loopback()) {
  const std::shared_ptr<Store> store = make_memory_store();
  std::vector<std::exception_ptr> failures(static_cast<size_t>(size));
  {
    std::vector<std::jthread> threads;
    for (int rank = 0; rank < size; ++rank)
      threads.emplace_back([&, rank] {
        try {
          Peers job(place_of(rank, size), gloo, store,
                  {.beat = std::chrono::milliseconds(100), .patience = std::chrono::milliseconds(400)});
          function(job);
        } catch (...) {
          failures[static_cast<size_t>(rank)] = std::current_exception();
        }
      });
  }
  for (const std::exception_ptr& failure : failures)
    if (failure != nullptr) std::rethrow_exception(failure);
}

/// Calls function(job) on `size` processes: this executable again, which runs only the test case `name` (without
/// commas) and comes here as one of the ranks. Error when a check fails in one of them.
inline void on_processes(const std::string& name, int size, const std::function<void(Peers&)>& function,
                         Device device = {}) {
  if (const char* own = std::getenv("LH_TEST_RANK")) {
    int rank = 0, of = 0, port = 0;
    if (std::sscanf(own, "%d of %d at %d", &rank, &of, &port) != 3) throw Error("LH_TEST_RANK");
    if (of != size) return;
    Peers job(place_of(rank, size, device), loopback(),
              connect_tcp_store({"127.0.0.1", static_cast<uint16_t>(port)}, std::chrono::seconds(30)));
    return function(job);
  }
  const TcpStoreServer server({"127.0.0.1", 0});
  const std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
  std::vector<pid_t> pids;
  for (int rank = 0; rank < size; ++rank) {
    const std::string place =
        "LH_TEST_RANK=" + std::to_string(rank) + " of " + std::to_string(size) + " at " + std::to_string(server.port());
    const std::string filter = "-tc=" + name;
    const pid_t pid = ::fork();
    if (pid == 0) {
      ::execlp("env", "env", place.c_str(), self.c_str(), filter.c_str(), nullptr);
      ::_exit(127);
    }
    pids.push_back(pid);
  }
  int bad = 0;
  for (const pid_t pid : pids) {
    int status = 0;
    bad += ::waitpid(pid, &status, 0) != pid || status != 0;
  }
  if (bad > 0) throw Error(std::to_string(bad) + " of " + std::to_string(size) + " processes failed");
}

}  // namespace lh::test
