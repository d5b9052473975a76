#include "launch/connection.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <random>

#include "base/error.h"

namespace lh {
namespace {

constexpr size_t kMostUnsent = 4 << 20;  // a peer that reads nothing is gone

const sockaddr* as_sockaddr(const Address& address) {
  return reinterpret_cast<const sockaddr*>(&address.storage);
}

int new_socket(int family) {
  const int fd = ::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) fail<Error>("cannot open a socket: {}", std::strerror(errno));
  return fd;
}

}  // namespace

std::string Address::text() const {
  char name[NI_MAXHOST] = "?";
  ::getnameinfo(as_sockaddr(*this), length, name, sizeof name, nullptr, 0, NI_NUMERICHOST);
  return name;
}

bool Address::is_loopback() const {
  if (storage.ss_family == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(&storage);
    return (ntohl(v4->sin_addr.s_addr) >> 24) == 127;
  }
  const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&storage);
  return storage.ss_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
}

std::vector<Address> resolve(const std::string& host, int64_t port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* list = nullptr;
  const int code = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &list);
  if (code != 0) fail<Error>("host '{}': {}", host, ::gai_strerror(code));
  std::vector<Address> result;
  for (const addrinfo* entry = list; entry != nullptr; entry = entry->ai_next) {
    Address address;
    std::memcpy(&address.storage, entry->ai_addr, entry->ai_addrlen);
    address.length = entry->ai_addrlen;
    result.push_back(address);
  }
  ::freeaddrinfo(list);
  return result;
}

bool is_local(const Address& address) {
  if (address.is_loopback()) return true;  // 127.0.0.2 is on no interface's list
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return false;
  bool found = false;
  const std::string wanted = address.text();
  for (const ifaddrs* entry = list; entry != nullptr && !found; entry = entry->ifa_next) {
    if (entry->ifa_addr == nullptr) continue;
    const auto family = entry->ifa_addr->sa_family;
    if (family != AF_INET && family != AF_INET6) continue;
    Address own;
    own.length = family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
    std::memcpy(&own.storage, entry->ifa_addr, own.length);
    found = own.text() == wanted;
  }
  ::freeifaddrs(list);
  return found;
}

std::optional<Listener> listen_on(const Address& address) {
  const int fd = new_socket(address.storage.ss_family);
  const int yes = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (::bind(fd, as_sockaddr(address), address.length) != 0 || ::listen(fd, 1024) != 0) {
    const int reason = errno;
    ::close(fd);
    errno = reason;
    if (reason == EADDRINUSE || reason == EADDRNOTAVAIL) return std::nullopt;
    fail<Error>("cannot listen on {}: {}", address.text(), std::strerror(reason));
  }
  Address own;
  own.length = sizeof own.storage;
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&own.storage), &own.length);
  const bool v6 = own.storage.ss_family == AF_INET6;
  const int64_t port = ntohs(v6 ? reinterpret_cast<sockaddr_in6*>(&own.storage)->sin6_port
                                : reinterpret_cast<sockaddr_in*>(&own.storage)->sin_port);
  return Listener{fd, port};
}

int start_connecting(const Address& address) {
  const int fd = new_socket(address.storage.ss_family);
  if (::connect(fd, as_sockaddr(address), address.length) == 0 || errno == EINPROGRESS) return fd;
  const int reason = errno;
  ::close(fd);
  fail<Error>("{}", std::strerror(reason));
}

int connecting_error(int fd) {
  int error = 0;
  socklen_t size = sizeof error;
  return ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
}

int64_t free_port() {
  static std::mt19937 random{std::random_device{}()};
  for (int attempt = 0; attempt < 200; ++attempt) {
    sockaddr_in any{};
    any.sin_family = AF_INET;
    const auto port = static_cast<uint16_t>(20000 + random() % 9000);
    any.sin_port = htons(port);
    const int fd = new_socket(AF_INET);
    const bool free = ::bind(fd, reinterpret_cast<sockaddr*>(&any), sizeof any) == 0;
    ::close(fd);
    if (free) return port;
  }
  fail<Error>("no free port from 20000 to 28999 for rank 0");
}

Connection::Connection(int fd) : fd_(fd) {
  const int yes = 1;
  ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
}

Connection::~Connection() {
  ::close(fd_);
}

void Connection::send(const Message& message) {
  outgoing_ += encode(message);
  flush();
}

void Connection::flush() {
  while (!broken_ && !outgoing_.empty()) {
    const ssize_t wrote = ::send(fd_, outgoing_.data(), outgoing_.size(), MSG_NOSIGNAL);
    if (wrote > 0)
      outgoing_.erase(0, static_cast<size_t>(wrote));
    else if (errno == EINTR)
      continue;
    else if (errno == EAGAIN || errno == EWOULDBLOCK)
      break;
    else
      broken_ = true;  // receive() says so
  }
  if (broken_) outgoing_.clear();
  if (outgoing_.size() > kMostUnsent) broken_ = true;
}

bool Connection::receive(std::vector<Message>& messages) {
  bool open = !broken_;
  char buffer[16 << 10];
  for (int round = 0; round < 64; ++round) {  // then the others have their turn
    const ssize_t got = ::recv(fd_, buffer, sizeof buffer, 0);
    if (got > 0) {
      reader_.feed({buffer, static_cast<size_t>(got)});
      // Cut at once, so that a flood of garbage is noticed before it fills memory.
      while (auto message = reader_.next()) messages.push_back(std::move(*message));
      continue;
    }
    if (got < 0 && errno == EINTR) continue;
    if (got == 0 || (errno != EAGAIN && errno != EWOULDBLOCK)) open = false;
    break;
  }
  return open;
}

std::string Connection::peer() const {
  Address address;
  address.length = sizeof address.storage;
  if (::getpeername(fd_, reinterpret_cast<sockaddr*>(&address.storage), &address.length) != 0)
    return "?";
  return address.text();
}

Address Connection::own_address() const {
  Address address;
  address.length = sizeof address.storage;
  ::getsockname(fd_, reinterpret_cast<sockaddr*>(&address.storage), &address.length);
  return address;
}

}  // namespace lh
