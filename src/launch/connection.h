// TCP between launchers: listening, connecting, and messages over a socket that never blocks.
#pragma once

#include <sys/socket.h>

#include <optional>
#include <string>
#include <vector>

#include "launch/message.h"

namespace lh {

struct Address {
  sockaddr_storage storage{};
  socklen_t length = 0;
  std::string text() const;  // without the port: 10.0.0.7, fe80::1
  bool is_loopback() const;
};

/// Addresses of host:port. Error with the resolver's reason when there are none.
std::vector<Address> resolve(const std::string& host, int64_t port);

/// True when an interface of this machine has the address.
bool is_local(const Address& address);

/// A listening socket and its port. errno is kept on failure: nullopt for EADDRINUSE and
/// EADDRNOTAVAIL, Error for the rest.
struct Listener {
  int fd = -1;
  int64_t port = 0;
};
std::optional<Listener> listen_on(const Address& address);

/// A socket that is connecting; its fd turns writable when it is decided. Error when the system
/// refuses at once.
int start_connecting(const Address& address);
/// 0 when the connection stands, else the errno.
int connecting_error(int fd);

/// A port that nobody listens on now, from below the range of outgoing connections, so that the
/// kernel does not hand it out before the worker of rank 0 binds it.
int64_t free_port();

/// Messages over a connected socket. Owns the descriptor.
class Connection {
 public:
  explicit Connection(int fd);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  int fd() const { return fd_; }
  bool wants_write() const { return !outgoing_.empty(); }

  /// Queues a message and writes what the socket takes now.
  void send(const Message& message);
  void flush();
  /// Appends the messages that have arrived. False once the other side is gone. ProtocolError on
  /// bytes that are none.
  bool receive(std::vector<Message>& messages);

  std::string peer() const;  // the other side's address
  Address own_address() const;

 private:
  int fd_;
  bool broken_ = false;
  std::string outgoing_;
  FrameReader reader_;
};

}  // namespace lh
