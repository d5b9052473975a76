#include "dist/store.h"

#include <map>
#include <mutex>
#include <thread>

#include "dist/comm_error.h"

namespace lh {
namespace {

class MemoryStore final : public Store {
 public:
  void set(const std::string& key, const std::string& value) override {
    const std::lock_guard lock(mutex_);
    values_[key] = value;
  }
  std::optional<std::string> find(const std::string& key) override {
    const std::lock_guard lock(mutex_);
    const auto found = values_.find(key);
    if (found == values_.end()) return std::nullopt;
    return found->second;
  }
  std::string set_once(const std::string& key, const std::string& value) override {
    const std::lock_guard lock(mutex_);
    return values_.emplace(key, value).first->second;
  }

 private:
  std::mutex mutex_;
  std::map<std::string, std::string> values_;
};

class PrefixStore final : public Store {
 public:
  PrefixStore(std::shared_ptr<Store> store, std::string prefix)
      : store_(std::move(store)), prefix_(std::move(prefix)) {}
  void set(const std::string& key, const std::string& value) override {
    store_->set(prefix_ + key, value);
  }
  std::optional<std::string> find(const std::string& key) override {
    return store_->find(prefix_ + key);
  }
  std::string set_once(const std::string& key, const std::string& value) override {
    return store_->set_once(prefix_ + key, value);
  }

 private:
  std::shared_ptr<Store> store_;
  std::string prefix_;
};

}  // namespace

std::string Store::get(const std::string& key, Timeout timeout) {
  const auto end = std::chrono::steady_clock::now() + timeout;
  auto pause = std::chrono::milliseconds(1);
  for (;;) {
    if (auto value = find(key)) return *std::move(value);
    if (std::chrono::steady_clock::now() >= end)
      fail<CommError>("[store] no process has set '{}' within {} s", key,
                      static_cast<double>(timeout.count()) / 1000);
    std::this_thread::sleep_for(pause);
    pause = std::min(pause * 2, std::chrono::milliseconds(50));
  }
}

std::shared_ptr<Store> make_memory_store() {
  return std::make_shared<MemoryStore>();
}

std::shared_ptr<Store> make_prefix_store(std::shared_ptr<Store> store, std::string prefix) {
  return std::make_shared<PrefixStore>(std::move(store), std::move(prefix));
}

}  // namespace lh
