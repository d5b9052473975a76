// A few small values that all processes of a job share: addresses while they find each other, who is where,
// and the first failure.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

namespace lh {

/// Keys and values are bytes. Calls may come from several threads. CommError when the store's process is
/// gone or a call took longer than its timeout.
class Store {
 public:
  using Timeout = std::chrono::milliseconds;

  virtual ~Store() = default;
  virtual void set(const std::string& key, const std::string& value) = 0;
  /// nullopt when the key has no value yet.
  virtual std::optional<std::string> find(const std::string& key) = 0;
  /// Sets the key where it has no value, and returns the value it then has.
  virtual std::string set_once(const std::string& key, const std::string& value) = 0;

  /// Waits for the key. CommError after the timeout, with the key.
  std::string get(const std::string& key, Timeout timeout);
};

/// For processes that are threads of one (tests), and for a job of one.
std::shared_ptr<Store> make_memory_store();

/// A view of a store in which every key has a prefix: a group, an attempt.
std::shared_ptr<Store> make_prefix_store(std::shared_ptr<Store> store, std::string prefix);

}  // namespace lh
