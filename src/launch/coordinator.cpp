#include "launch/coordinator.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

#include "base/error.h"
#include "base/log.h"

namespace lh {
namespace {

constexpr double kHelloWithin = 5;    // seconds; a port scanner keeps silent
constexpr size_t kMostUnknown = 256;  // connections that have not said hello

}  // namespace

Coordinator::Coordinator(EventLoop& loop, Listener listener, JobOptions options)
    : loop_(loop), listener_(listener), job_(std::move(options), monotonic_seconds()) {
  loop_.watch(listener_.fd, POLLIN, [this](short) { accept_all(); });
}

Coordinator::~Coordinator() {
  loop_.forget(listener_.fd);
  ::close(listener_.fd);
  for (const auto& [id, client] : connections_) loop_.forget(client.connection->fd());
}

bool Coordinator::done() const {
  return job_.over() && std::none_of(connections_.begin(), connections_.end(),
                                     [](const auto& entry) { return entry.second.known; });
}

void Coordinator::accept_all() {
  for (;;) {
    const int fd = ::accept4(listener_.fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) return;
    size_t unknown = 0;
    for (const auto& [id, client] : connections_) unknown += !client.known;
    if (unknown >= kMostUnknown) {
      ::close(fd);
      continue;
    }
    const Job::NodeId id = next_id_++;
    connections_[id] = {std::make_unique<Connection>(fd), monotonic_seconds()};
    rewatch(id);
  }
}

void Coordinator::rewatch(Job::NodeId id) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  const Connection& connection = *found->second.connection;
  const auto events = static_cast<short>(connection.wants_write() ? POLLIN | POLLOUT : POLLIN);
  loop_.watch(connection.fd(), events, [this, id](short) { serve(id); });
}

void Coordinator::serve(Job::NodeId id) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  Client& client = found->second;
  std::vector<Message> messages;
  bool open = false;
  try {
    client.connection->flush();
    open = client.connection->receive(messages);
    for (const Message& message : messages) {
      client.known |= message.kind == "hello";
      job_.receive(id, client.connection->peer(), message, monotonic_seconds());
    }
  } catch (const ProtocolError& error) {
    log_debug("[launch] dropped a connection from {}: {}", client.connection->peer(), error.what());
    open = false;
  }
  if (!open || (client.closing && !client.connection->wants_write())) drop(id);
  deliver();
}

void Coordinator::drop(Job::NodeId id) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  loop_.forget(found->second.connection->fd());
  connections_.erase(found);
  job_.closed(id, monotonic_seconds());
}

void Coordinator::deliver() {
  for (auto output = job_.take_output(); !output.empty(); output = job_.take_output()) {
    for (const Job::Output& out : output) {
      const auto found = connections_.find(out.to);
      if (found == connections_.end()) continue;
      found->second.connection->send(out.message);
      found->second.closing |= out.close_after;
      if (found->second.closing && !found->second.connection->wants_write())
        drop(out.to);
      else
        rewatch(out.to);
    }
  }
}

void Coordinator::tick() {
  const double now = monotonic_seconds();
  std::vector<Job::NodeId> late;
  for (const auto& [id, client] : connections_)
    if (!client.known && now - client.since > kHelloWithin) late.push_back(id);
  for (const Job::NodeId id : late) drop(id);
  job_.tick(now);
  deliver();
}

}  // namespace lh
