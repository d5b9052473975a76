// The store of a job over TCP: the process at the job's master address serves it, the others ask.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "dist/store.h"

namespace lh {

struct Endpoint {
  std::string host;
  uint16_t port = 0;

  std::string str() const;
};

/// Serves until destroyed. Connections that do not speak its protocol are closed and disturb nobody.
class TcpStoreServer {
 public:
  /// Port 0: any free one. CommError when the port is taken, with the way to choose another.
  explicit TcpStoreServer(const Endpoint& endpoint);
  ~TcpStoreServer();
  TcpStoreServer(const TcpStoreServer&) = delete;
  TcpStoreServer& operator=(const TcpStoreServer&) = delete;

  uint16_t port() const;
  /// What is served, for the process that serves it.
  std::shared_ptr<Store> store() const;

 private:
  class State;
  std::unique_ptr<State> state_;
};

/// Connects, trying again until the timeout because the server may start later. CommError says what is wrong:
/// unknown host, nobody listens, another program or another version answers. `waiting` hears every now and then why
/// there is no connection yet, and may throw. Later calls wait for an answer as long, but at most ten seconds; after
/// one that failed, all fail.
std::shared_ptr<Store> connect_tcp_store(const Endpoint& endpoint, Store::Timeout timeout,
                                         const std::function<void(const std::string&)>& waiting = {});

}  // namespace lh
