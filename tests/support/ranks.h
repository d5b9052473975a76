// Runs a function on several ranks: threads of this process over real connections, or processes.
#pragma once

#include <exception>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "dist/peers.h"

namespace lh::test {

inline GlooOptions loopback(std::chrono::milliseconds timeout = std::chrono::seconds(30)) {
  return {"127.0.0.1", timeout};
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
          Peers job({.rank = rank, .size = size, .master = {}}, gloo, store,
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

}  // namespace lh::test
