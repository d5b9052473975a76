// Protocol: on connecting both sides send 16 bytes of greeting (name and version). A request is one byte of
// what to do, then key and value, each as 4 bytes of length (little endian) and the bytes; the answer is one
// byte (1: there is a value) and the value in the same form.
#include "dist/tcp_store.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <atomic>
#include <cstring>
#include <list>
#include <mutex>
#include <thread>

#include "dist/comm_error.h"
#include "dist/socket.h"

namespace lh {
namespace {

using Greeting = std::array<char, 16>;
constexpr Greeting kGreeting = {'l', 'o', 'n', 'g', 'h', 'a', 'n', 'd',
                                ' ', 's', 't', 'o', 'r', 'e', ' ', '1'};
constexpr size_t kVersionAt = 15;
constexpr uint32_t kMaxBytes = 1 << 20;  // of a key or a value
constexpr std::chrono::milliseconds kCallTimeout{10000};

enum class Request : char { kSet = 's', kFind = 'f', kSetOnce = 'o' };

void write_text(std::string& to, const std::string& text) {
  const auto size = static_cast<uint32_t>(text.size());
  for (int i = 0; i < 4; ++i) to.push_back(static_cast<char>(size >> (8 * i)));
  to += text;
}

std::string read_text(Socket& socket, Deadline deadline) {
  std::array<unsigned char, 4> bytes{};
  if (!socket.read(bytes.data(), bytes.size(), deadline)) fail<CommError>("connection closed");
  uint32_t size = 0;
  for (size_t i = 0; i < 4; ++i) size |= static_cast<uint32_t>(bytes[i]) << (8 * i);
  if (size > kMaxBytes) fail<CommError>("a text of {} bytes, at most {} are allowed", size, kMaxBytes);
  std::string text(size, '\0');
  if (size > 0 && !socket.read(text.data(), size, deadline)) fail<CommError>("connection closed");
  return text;
}

class TcpStore final : public Store {
 public:
  TcpStore(Endpoint endpoint, Socket socket, Timeout timeout)
      : endpoint_(std::move(endpoint)), socket_(std::move(socket)), timeout_(timeout) {}

  void set(const std::string& key, const std::string& value) override {
    ask(Request::kSet, key, value);
  }
  std::optional<std::string> find(const std::string& key) override {
    return ask(Request::kFind, key, "");
  }
  std::string set_once(const std::string& key, const std::string& value) override {
    return ask(Request::kSetOnce, key, value).value_or(value);
  }

 private:
  std::optional<std::string> ask(Request request, const std::string& key,
                                 const std::string& value) {
    const std::lock_guard lock(mutex_);
    if (!lost_.empty()) throw CommError(lost_);  // a late answer would be taken for that of another request
    try {
      std::string message(1, static_cast<char>(request));
      write_text(message, key);
      write_text(message, value);
      const Deadline deadline = after(timeout_);
      socket_.write(message.data(), message.size(), deadline);
      char there = 0;
      if (!socket_.read(&there, 1, deadline)) fail<CommError>("connection closed");
      std::string answer = read_text(socket_, deadline);
      if (there == 0) return std::nullopt;
      return answer;
    } catch (const CommError& error) {
      lost_ = fmt::format("[store] the process that serves {} is gone: {}", endpoint_.str(), error.what());
      throw CommError(lost_);
    }
  }

  Endpoint endpoint_;
  std::mutex mutex_;
  Socket socket_;
  Timeout timeout_;
  std::string lost_;  // why, once it is
};

}  // namespace

std::string Endpoint::str() const {
  return host.find(':') == std::string::npos ? fmt::format("{}:{}", host, port) : fmt::format("[{}]:{}", host, port);
}

class TcpStoreServer::State {
 public:
  explicit State(const Endpoint& endpoint)
      : store_(make_memory_store()), listener_(Socket::listen(endpoint.host, endpoint.port)) {
    accepting_ = std::thread([this] { accept(); });
  }

  ~State() {
    stop_ = true;
    listener_.shut_down();
    accepting_.join();
    {
      const std::lock_guard lock(mutex_);
      for (Client& client : clients_) client.socket.shut_down();
    }
    for (Client& client : clients_) client.thread.join();
  }

  uint16_t port() const { return listener_.port(); }
  const std::shared_ptr<Store>& store() const { return store_; }

 private:
  struct Client {
    Socket socket;
    std::thread thread;
    std::atomic<bool> done{false};
  };

  void accept() {
    while (!stop_) {
      pollfd ready{listener_.fd(), POLLIN, 0};
      if (::poll(&ready, 1, 200) <= 0) continue;
      const int fd = ::accept4(listener_.fd(), nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) continue;
      const std::lock_guard lock(mutex_);
      clients_.remove_if([](Client& client) {
        if (!client.done) return false;
        client.thread.join();
        return true;
      });
      Client& client = clients_.emplace_back();
      client.socket = Socket(fd);
      client.thread = std::thread([this, &client] {
        serve(client.socket);
        client.socket.shut_down();
        client.done = true;
      });
    }
  }

  void serve(Socket& socket) {
    try {
      Greeting theirs{};
      socket.write(kGreeting.data(), kGreeting.size(), after(kCallTimeout));
      if (!socket.read(theirs.data(), theirs.size(), after(kCallTimeout)) || theirs != kGreeting)
        return;
      constexpr auto kForever = std::chrono::hours(24 * 365);
      for (char request = 0; socket.read(&request, 1, after(kForever));) {
        const Deadline deadline = after(kCallTimeout);
        const std::string key = read_text(socket, deadline), value = read_text(socket, deadline);
        std::optional<std::string> found;
        switch (static_cast<Request>(request)) {
          case Request::kSet: store_->set(key, value); break;
          case Request::kFind: found = store_->find(key); break;
          case Request::kSetOnce: found = store_->set_once(key, value); break;
          default: return;
        }
        std::string answer(1, found ? '\1' : '\0');
        write_text(answer, found.value_or(""));
        socket.write(answer.data(), answer.size(), deadline);
      }
    } catch (const CommError&) {
      // A client that left, or never was one.
    }
  }

  std::shared_ptr<Store> store_;
  Socket listener_;
  std::atomic<bool> stop_{false};
  std::thread accepting_;
  std::mutex mutex_;
  std::list<Client> clients_;
};

TcpStoreServer::TcpStoreServer(const Endpoint& endpoint) {
  try {
    state_ = std::make_unique<State>(endpoint);
  } catch (const CommError& error) {
    fail<CommError>("[store] {}. Another job may use this port: choose another (MASTER_PORT)",
                    error.what());
  }
}

TcpStoreServer::~TcpStoreServer() = default;

uint16_t TcpStoreServer::port() const {
  return state_->port();
}

std::shared_ptr<Store> TcpStoreServer::store() const {
  return state_->store();
}

std::shared_ptr<Store> connect_tcp_store(const Endpoint& endpoint, Store::Timeout timeout,
                                         const std::function<void(const std::string&)>& waiting) {
  const Deadline deadline = after(timeout);
  for (std::string reason;;) {
    try {
      Socket socket = Socket::connect(endpoint.host, endpoint.port,
                                      std::min(deadline, after(std::chrono::seconds(5))));
      Greeting theirs{};
      const Deadline answer = std::min(deadline, after(kCallTimeout));
      socket.write(kGreeting.data(), kGreeting.size(), answer);
      if (!socket.read(theirs.data(), theirs.size(), answer))
        fail<CommError>("the connection was closed at once");
      if (theirs != kGreeting) {
        const bool ours = std::equal(theirs.begin(), theirs.begin() + kVersionAt, kGreeting.begin());
        fail<Error>("[store] {} answers, but {}", endpoint.str(),
                    ours ? fmt::format("speaks version {} of the protocol, this is version {}: all "
                                       "processes need the same longhand",
                                       theirs[kVersionAt], kGreeting[kVersionAt])
                         : "is another program: check MASTER_ADDR and MASTER_PORT");
      }
      return std::make_shared<TcpStore>(endpoint, std::move(socket), std::min(timeout, kCallTimeout));
    } catch (const CommError& error) {
      reason = error.what();
    } catch (const Error& error) {
      fail<CommError>("{}", error.what());
    }
    if (std::chrono::steady_clock::now() >= deadline)
      fail<CommError>("[store] cannot reach {} within {} s: {}. Does the process of rank 0 run there "
                      "(MASTER_ADDR, MASTER_PORT)?",
                      endpoint.str(), static_cast<double>(timeout.count()) / 1000, reason);
    if (waiting) waiting(reason);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

}  // namespace lh
