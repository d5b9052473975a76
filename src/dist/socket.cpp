#include "dist/socket.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include <fcntl.h>

#include "dist/comm_error.h"

namespace lh {
namespace {

using Addresses = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

Addresses resolve(const std::string& host, uint16_t port, bool passive) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV | (passive ? AI_PASSIVE : 0);
  addrinfo* found = nullptr;
  const int code = getaddrinfo(host.empty() ? nullptr : host.c_str(), std::to_string(port).c_str(),
                               &hints, &found);
  if (code != 0) fail<CommError>("host '{}' is unknown: {}", host, gai_strerror(code));
  return {found, &freeaddrinfo};
}

/// Waits until the socket is ready; throws at the deadline.
void wait_for(int fd, short events, Deadline deadline) {
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    pollfd poll_on{fd, events, 0};
    const int ready = ::poll(&poll_on, 1, static_cast<int>(std::max<int64_t>(left.count(), 0)));
    if (ready > 0) return;
    if (ready == 0) fail<CommError>("no answer in time");
    if (errno != EINTR) fail<CommError>("poll: {}", std::strerror(errno));
  }
}

}  // namespace

Socket::~Socket() {
  if (fd_ >= 0) ::close(fd_);
}

Socket::Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

Socket& Socket::operator=(Socket&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

Socket Socket::connect(const std::string& host, uint16_t port, Deadline deadline) {
  const Addresses addresses = resolve(host, port, false);
  std::string reason = "no address";
  int left = 0;
  for (const addrinfo* a = addresses.get(); a != nullptr; a = a->ai_next) ++left;
  for (const addrinfo* a = addresses.get(); a != nullptr; a = a->ai_next, --left) {
    // One that is silent leaves time for the others.
    const auto now = std::chrono::steady_clock::now();
    const Deadline share = now + (deadline - now) / left;
    Socket made(::socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (made.fd_ < 0) continue;
    if (::connect(made.fd_, a->ai_addr, a->ai_addrlen) != 0 && errno != EINPROGRESS) {
      reason = std::strerror(errno);
      continue;
    }
    try {
      wait_for(made.fd_, POLLOUT, share);
    } catch (const CommError& silent) {
      reason = silent.what();
      continue;
    }
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(made.fd_, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) {
      reason = std::strerror(error);
      continue;
    }
    const int on = 1;
    setsockopt(made.fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return made;
  }
  fail<CommError>("{}:{}: {}", host, port, reason);
}

Socket Socket::listen(const std::string& host, uint16_t port) {
  const Addresses addresses = resolve(host, port, true);
  std::vector<const addrinfo*> order;
  for (const addrinfo* a = addresses.get(); a != nullptr; a = a->ai_next) order.push_back(a);
  // Of all addresses: a socket of version 6 takes those of version 4 too, where the machine has it.
  if (host.empty())
    std::stable_partition(order.begin(), order.end(), [](const addrinfo* a) { return a->ai_family == AF_INET6; });
  std::string reason = "no address";
  for (const addrinfo* a : order) {
    Socket made(::socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, 0));
    if (made.fd_ < 0) continue;
    const int on = 1, off = 0;
    setsockopt(made.fd_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (a->ai_family == AF_INET6) setsockopt(made.fd_, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (::bind(made.fd_, a->ai_addr, a->ai_addrlen) == 0 && ::listen(made.fd_, 1024) == 0)
      return made;
    reason = std::strerror(errno);
  }
  fail<CommError>("cannot listen on {}:{}: {}", host, port, reason);
}

uint16_t Socket::port() const {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(address).sin6_port
                                             : reinterpret_cast<sockaddr_in&>(address).sin_port);
}

void Socket::write(const void* data, size_t bytes, Deadline deadline) {
  const char* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t done = ::send(fd_, at, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (done > 0) {
      at += done;
      bytes -= static_cast<size_t>(done);
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      wait_for(fd_, POLLOUT, deadline);
    } else if (errno != EINTR) {
      fail<CommError>("connection lost: {}", std::strerror(errno));
    }
  }
}

bool Socket::read(void* data, size_t bytes, Deadline deadline) {
  char* at = static_cast<char*>(data);
  bool begun = false;
  while (bytes > 0) {
    const ssize_t done = ::recv(fd_, at, bytes, MSG_DONTWAIT);
    if (done > 0) {
      begun = true;
      at += done;
      bytes -= static_cast<size_t>(done);
    } else if (done == 0) {
      if (!begun) return false;
      fail<CommError>("connection closed in the middle of a message");
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      wait_for(fd_, POLLIN, deadline);
    } else if (errno != EINTR) {
      fail<CommError>("connection lost: {}", std::strerror(errno));
    }
  }
  return true;
}

void Socket::shut_down() {
  if (fd_ >= 0) ::shutdown(fd_, SHUT_RDWR);
}

}  // namespace lh
