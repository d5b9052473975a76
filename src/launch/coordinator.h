// The coordinator's sockets: accepts launchers, feeds a Job, drops whoever talks nonsense.
#pragma once

#include <map>
#include <memory>

#include "launch/connection.h"
#include "launch/event_loop.h"
#include "launch/job.h"

namespace lh {

class Coordinator {
 public:
  /// Takes over the listening socket.
  Coordinator(EventLoop& loop, Listener listener, JobOptions options);
  ~Coordinator();
  Coordinator(const Coordinator&) = delete;
  Coordinator& operator=(const Coordinator&) = delete;

  void tick();
  /// The job is over and every launcher has hung up.
  bool done() const;
  int64_t port() const { return listener_.port; }

 private:
  struct Client {
    std::unique_ptr<Connection> connection;
    double since = 0;
    bool known = false;    // said hello
    bool closing = false;  // once its last words are sent
  };
  void accept_all();
  void serve(Job::NodeId id);
  void drop(Job::NodeId id);
  void deliver();
  void rewatch(Job::NodeId id);

  EventLoop& loop_;
  Listener listener_;
  Job job_;
  std::map<Job::NodeId, Client> connections_;
  Job::NodeId next_id_ = 1;
};

}  // namespace lh
