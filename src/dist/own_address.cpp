#include "dist/own_address.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>

#include "base/interface_address.h"
#include "dist/comm_error.h"

namespace lh {
namespace {

using Addresses = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

Addresses addresses_of(const std::string& host, uint16_t port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  const int code = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (code != 0) fail<CommError>("[dist] host '{}' is unknown: {}", host, gai_strerror(code));
  return {found, &freeaddrinfo};
}

std::string digits(const sockaddr* address, socklen_t length) {
  char text[NI_MAXHOST] = {};
  getnameinfo(address, length, text, sizeof text, nullptr, 0, NI_NUMERICHOST);
  return text;
}

bool is_loopback(const std::string& address) {
  return address.starts_with("127.") || address == "::1";
}

}  // namespace

std::string own_address(const Endpoint& master) {
  const Addresses addresses = addresses_of(master.host, master.port);
  std::string found;
  for (const addrinfo* a = addresses.get(); a != nullptr && found.empty(); a = a->ai_next) {
    const int fd = ::socket(a->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sockaddr_storage own{};
    socklen_t size = sizeof own;
    auto* generic = reinterpret_cast<sockaddr*>(&own);
    // Connecting a datagram socket sends nothing; it chooses the way.
    if (::connect(fd, a->ai_addr, a->ai_addrlen) == 0 && ::getsockname(fd, generic, &size) == 0)
      found = digits(generic, size);
    ::close(fd);
  }
  if (found.empty()) fail<CommError>("[dist] no way from this host to {}", master.str());
  if (!is_loopback(found)) return found;
  const std::string other = interface_address();
  return other.empty() ? found : other;
}

std::string address_of_host(const std::string& host) {
  const Addresses addresses = addresses_of(host, 0);
  return digits(addresses->ai_addr, addresses->ai_addrlen);
}

}  // namespace lh
