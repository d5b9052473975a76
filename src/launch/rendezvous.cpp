#include "launch/rendezvous.h"

#include <arpa/inet.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace lh {
namespace {

constexpr double kAttempt = 3;  // seconds for one connection to come about
constexpr double kBetween = 0.25;

Address with_port(Address address, int64_t port) {
  const uint16_t number = htons(static_cast<uint16_t>(port));
  if (address.storage.ss_family == AF_INET6)
    reinterpret_cast<sockaddr_in6*>(&address.storage)->sin6_port = number;
  else
    reinterpret_cast<sockaddr_in*>(&address.storage)->sin_port = number;
  return address;
}

/// All interfaces, in the family of `like` and on its port.
Address any_interface(Address like) {
  if (like.storage.ss_family == AF_INET6)
    reinterpret_cast<sockaddr_in6*>(&like.storage)->sin6_addr = in6addr_any;
  else
    reinterpret_cast<sockaddr_in*>(&like.storage)->sin_addr.s_addr = INADDR_ANY;
  return like;
}

}  // namespace

Rendezvous::Rendezvous(EventLoop& loop, const LaunchPlan& plan, JobOptions job)
    : loop_(loop), plan_(plan), job_(std::move(job)) {}

Rendezvous::~Rendezvous() {
  if (socket_ < 0) return;
  loop_.forget(socket_);
  ::close(socket_);
}

std::string Rendezvous::where() const {
  const bool v6 = plan_.host.find(':') != std::string::npos;
  const int64_t port = coordinator_ != nullptr ? coordinator_->port() : plan_.port;
  return fmt::format("{}{}{}:{}", v6 ? "[" : "", plan_.host.empty() ? "127.0.0.1" : plan_.host,
                     v6 ? "]" : "", port);
}

/// Listens at the endpoint if it is this machine's and nobody else does.
void Rendezvous::try_to_host() {
  busy_.reset();
  if (plan_.is_host == false) return;
  const bool single = plan_.host.empty();
  for (const Address& address : resolve(single ? "127.0.0.1" : plan_.host, plan_.port)) {
    if (plan_.is_host != true && !is_local(address)) continue;
    // Many machines' own name resolves to 127.0.1.1 on themselves, and a PyTorchJob tells its master "localhost"; the
    // others can't come there.
    const bool named = !single && (plan_.host != "localhost" ? plan_.host != address.text()
                                                             : plan_.is_host == true && plan_.max_nodes > 1);
    auto listener = listen_on(address.is_loopback() && named ? any_interface(address) : address);
    if (!listener && errno == EADDRNOTAVAIL) {
      // The name of a service in front of this machine.
      if (plan_.is_host == true) listener = listen_on(any_interface(address));
      if (!listener && errno == EADDRNOTAVAIL) continue;
      if (listener) {
        Address loopback = resolve("localhost", plan_.port).front();
        for (const Address& local : resolve("localhost", plan_.port))
          if (local.storage.ss_family == address.storage.ss_family) loopback = local;
        own_ = with_port(loopback, listener->port);
      }
    }
    if (!listener) {
      busy_ = address;  // a second coordinator at another address would split the job
      return;
    }
    coordinator_ = std::make_unique<Coordinator>(loop_, *listener, job_);
    if (!own_) own_ = with_port(address, listener->port);
    return;
  }
}

void Rendezvous::attempt(double now) {
  if (coordinator_ == nullptr) try_to_host();
  Address target;
  if (own_) {
    target = *own_;
  } else if (busy_) {
    target = *busy_;
  } else {
    const std::vector<Address> all = resolve(plan_.host, plan_.port);
    target = all[attempts_++ % all.size()];
  }
  socket_ = start_connecting(target);
  ready_ = false;
  attempt_until_ = now + kAttempt;
  loop_.watch(socket_, POLLOUT, [this](short) {
    ready_ = true;
    loop_.forget(socket_);
  });
}

void Rendezvous::give_up_attempt(double now, const std::string& problem) {
  problem_ = problem;
  next_attempt_ = now + kBetween;
  if (socket_ < 0) return;
  loop_.forget(socket_);
  ::close(socket_);
  socket_ = -1;
}

std::unique_ptr<Connection> Rendezvous::tick(double now) {
  try {
    if (socket_ < 0 && now >= next_attempt_) attempt(now);
  } catch (const Error& error) {
    give_up_attempt(now, error.what());
  }
  if (socket_ < 0) return nullptr;
  if (ready_) {
    const int error = connecting_error(socket_);
    if (error == 0) return std::make_unique<Connection>(std::exchange(socket_, -1));
    give_up_attempt(now, std::strerror(error));
  } else if (now > attempt_until_) {
    give_up_attempt(now, "no answer");
  }
  return nullptr;
}

}  // namespace lh
