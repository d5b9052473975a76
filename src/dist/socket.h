// TCP sockets with a deadline on every call.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace lh {

using Deadline = std::chrono::steady_clock::time_point;

inline Deadline after(std::chrono::milliseconds time) {
  return std::chrono::steady_clock::now() + time;
}

/// Owns a file descriptor. Failures are CommError with the system's words.
class Socket {
 public:
  Socket() = default;
  explicit Socket(int fd) : fd_(fd) {}
  ~Socket();
  Socket(Socket&& other) noexcept;
  Socket& operator=(Socket&& other) noexcept;

  /// One attempt. Throws when nobody answers before the deadline.
  static Socket connect(const std::string& host, uint16_t port, Deadline deadline);
  /// On all addresses of the host; port 0: a free one.
  static Socket listen(const std::string& host, uint16_t port);

  int fd() const { return fd_; }
  uint16_t port() const;  // of the local end

  void write(const void* data, size_t bytes, Deadline deadline);
  /// False when the other end closed before the first byte.
  bool read(void* data, size_t bytes, Deadline deadline);
  /// Makes blocked calls of other threads return.
  void shut_down();

 private:
  int fd_ = -1;
};

}  // namespace lh
