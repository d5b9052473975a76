// Finding the coordinator: hosting it where the endpoint is this machine, connecting to it anywhere
// else, again and again until it is there.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "launch/coordinator.h"
#include "launch/options.h"

namespace lh {

class Rendezvous {
 public:
  Rendezvous(EventLoop& loop, const LaunchPlan& plan, JobOptions job);
  ~Rendezvous();
  Rendezvous(const Rendezvous&) = delete;
  Rendezvous& operator=(const Rendezvous&) = delete;

  /// Makes progress; hands over the connection once it stands. Never blocks except to resolve
  /// names.
  std::unique_ptr<Connection> tick(double now);
  /// Gives the next attempt that much time.
  void pause(double now, double seconds) { next_attempt_ = now + seconds; }

  /// The coordinator lives in this process; nullptr when it does not.
  Coordinator* coordinator() { return coordinator_.get(); }
  std::string where() const;                               // host:port
  const std::string& problem() const { return problem_; }  // why the last attempt failed

 private:
  void try_to_host();
  void attempt(double now);
  void give_up_attempt(double now, const std::string& problem);

  EventLoop& loop_;
  const LaunchPlan& plan_;
  JobOptions job_;
  std::unique_ptr<Coordinator> coordinator_;
  std::optional<Address> busy_;  // the endpoint is here, but another process listens on it
  std::optional<Address> own_;   // where the own coordinator is reached
  int socket_ = -1;              // that is connecting
  bool ready_ = false;
  double attempt_until_ = 0;
  double next_attempt_ = 0;
  size_t attempts_ = 0;
  std::string problem_;
};

}  // namespace lh
