// Only Gloo's point-to-point messages are used: its collectives add in an order that depends on the algorithm,
// and one of them leaves the connections slow (reduce_scatter_halving_doubling, in the packaged version).
#include "dist/gloo_transport.h"

#include <gloo/common/error.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/store.h>
#include <gloo/transport/tcp/device.h>
#include <gloo/transport/unbound_buffer.h>

#include <fmt/format.h>

#include <csignal>
#include <future>
#include <mutex>
#include <thread>

#include "dist/own_address.h"

namespace lh {
namespace {

/// Our store as Gloo wants one.
class GlooStore final : public gloo::rendezvous::Store {
 public:
  GlooStore(std::shared_ptr<lh::Store> store, lh::Store::Timeout timeout)
      : store_(std::move(store)), timeout_(timeout) {}

  void set(const std::string& key, const std::vector<char>& data) override {
    store_->set(key, {data.begin(), data.end()});
  }
  std::vector<char> get(const std::string& key) override {
    const std::string value = store_->get(key, timeout_);
    return {value.begin(), value.end()};
  }
  void wait(const std::vector<std::string>& keys) override { wait(keys, timeout_); }
  void wait(const std::vector<std::string>& keys,
            const std::chrono::milliseconds& timeout) override {
    for (const std::string& key : keys) store_->get(key, timeout);
  }

 private:
  std::shared_ptr<lh::Store> store_;
  lh::Store::Timeout timeout_;
};

class GlooTransport final : public Transport {
 public:
  GlooTransport(std::shared_ptr<Store> store, int rank, int size, const GlooOptions& options)
      : context_(std::make_shared<gloo::rendezvous::Context>(rank, size)),
        timeout_(options.timeout) {
    gloo::transport::tcp::attr attributes;
    attributes.hostname = options.host;
    auto device = gloo::transport::tcp::CreateDevice(attributes);
    context_->setTimeout(options.timeout / 5);  // it waits five times as long for a first connection
    connect(std::move(store), device);
  }

  const char* name() const override { return "gloo"; }
  bool on_device() const override { return false; }

  void exchange(std::span<const Transfer> out, std::span<const Transfer> in) override {
    const uint64_t slot = slot_++;  // the same on all processes, so exchanges cannot mix
    Buffers receiving, sending;
    for (const Transfer& message : in) {
      receiving.push_back(context_->createUnboundBuffer(message.data, message.bytes));
      receiving.back()->recv(message.peer, slot);
    }
    for (const Transfer& message : out) {
      sending.push_back(context_->createUnboundBuffer(message.data, message.bytes));
      sending.back()->send(message.peer, slot);
    }
    const Waiting waiting(*this, receiving, sending);
    bool complete = true;
    for (auto& buffer : receiving) complete = complete && buffer->waitRecv(nullptr, timeout_);
    for (auto& buffer : sending) complete = complete && buffer->waitSend(nullptr, timeout_);
    if (!complete) fail<CommAbandoned>("[dist] the group was given up");
  }

  void abandon() override {
    const std::lock_guard lock(mutex_);
    abandoned_ = true;
    if (receiving_ == nullptr) return;
    for (auto& buffer : *receiving_) buffer->abortWaitRecv();
    for (auto& buffer : *sending_) buffer->abortWaitSend();
  }

 private:
  /// On a thread, which is left behind when the job fails meanwhile: nothing else ends its wait.
  void connect(std::shared_ptr<Store> store, std::shared_ptr<gloo::transport::Device> device) {
    auto connected = std::make_shared<std::promise<void>>();
    std::future<void> done = connected->get_future();
    std::thread([context = context_, store, timeout = timeout_, device, connected]() mutable {
      try {
        GlooStore gloo_store(store, timeout);
        context->connectFullMesh(gloo_store, device);
        connected->set_value();
      } catch (...) {
        connected->set_exception(std::current_exception());
      }
    }).detach();
    while (done.wait_for(std::chrono::milliseconds(50)) != std::future_status::ready)
      store->find("failure");  // which nobody sets; asking throws when the job has failed (Peers)
    done.get();
  }

  using Buffers = std::vector<std::unique_ptr<gloo::transport::UnboundBuffer>>;

  /// What abandon() interrupts.
  class Waiting {
   public:
    Waiting(GlooTransport& owner, Buffers& receiving, Buffers& sending) : owner_(owner) {
      const std::lock_guard lock(owner_.mutex_);
      if (owner_.abandoned_) fail<CommAbandoned>("[dist] the group was given up");
      owner_.receiving_ = &receiving;
      owner_.sending_ = &sending;
    }
    ~Waiting() {
      const std::lock_guard lock(owner_.mutex_);
      owner_.receiving_ = owner_.sending_ = nullptr;
    }
    Waiting(const Waiting&) = delete;
    Waiting& operator=(const Waiting&) = delete;

   private:
    GlooTransport& owner_;
  };

  std::mutex mutex_;
  Buffers *receiving_ = nullptr, *sending_ = nullptr;
  bool abandoned_ = false;
  std::shared_ptr<gloo::rendezvous::Context> context_;
  std::chrono::milliseconds timeout_;
  uint64_t slot_ = 0;
};

}  // namespace

std::shared_ptr<Transport> connect_gloo(std::shared_ptr<Store> store, int rank, int size,
                                        const GlooOptions& options) {
  // Gloo writes to connections that may be gone; the error of the write says so, the signal would end the process.
  static const auto ignored = ::signal(SIGPIPE, SIG_IGN);
  (void)ignored;
  GlooOptions resolved = options;
  resolved.host = address_of_host(options.host);  // Gloo dies of a name that it cannot resolve
  try {
    return std::make_shared<GlooTransport>(std::move(store), rank, size, resolved);
  } catch (const PeerFailure&) {
    throw;
  } catch (const CommInterrupted&) {
    throw;
  } catch (const CommError& error) {
    fail<CommError>("[dist] process {} of {} waits in vain for the others: {}", rank, size,
                    error.what());
  } catch (const std::exception& error) {
    fail<CommError>("[dist] process {} of {} cannot connect from {}: {}", rank, size, options.host,
                    error.what());
  }
}

}  // namespace lh
