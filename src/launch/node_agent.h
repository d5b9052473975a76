// The launcher's part on one node: joins the job, starts and stops this node's workers as the
// coordinator says, and tells it what becomes of them.
#pragma once

#include <memory>
#include <optional>
#include <set>
#include <string>

#include "launch/console.h"
#include "launch/log_folder.h"
#include "launch/rendezvous.h"
#include "launch/worker_environment.h"
#include "launch/worker_group.h"

namespace lh {

class NodeAgent {
 public:
  NodeAgent(EventLoop& loop, const LaunchPlan& plan, const std::string& program,
            const std::string& launch_id, Guard& guard, Console& console);

  /// A signal that asks the launcher to stop.
  void stop_signal(int signal);
  /// Makes progress; call it after every wait of the loop.
  void tick();
  /// The job is over for this node, nothing of it runs, and nobody needs the coordinator here.
  bool done();
  int exit_code() const { return exit_code_; }

 private:
  void connected(std::unique_ptr<Connection> connection, double now);
  void watch_connection();
  void read_connection();
  void receive(const Message& message, double now);
  void lose_connection(const std::string& how, double now);
  void start_workers(const Message& message, double now);
  void worker_ended(const WorkerExit& exit, double now);
  void report(const Failure& failure, double age, bool late);
  void report_due(double now);
  void send(const Message& message);
  void send_ended();
  void check_stuck(double now);
  void finish(int code, const std::string& text);
  std::string without_repetition(std::string text, const Failure& failure) const;
  std::string own_address() const;

  EventLoop& loop_;
  const LaunchPlan& plan_;
  const std::string program_;
  const std::string launch_id_;
  const std::string host_;
  Guard& guard_;
  Console& console_;
  LogFolder logs_;
  WorkerGroup workers_;
  Rendezvous rendezvous_;
  std::unique_ptr<Connection> connection_;
  double started_;  // looking for the coordinator since then
  double said_hello_ = 0;
  double heard_ = 0;  // from the coordinator
  double beaten_ = 0;
  double renewed_ = 0;  // the lease
  double beat_every_ = 0.5;
  double lost_after_ = 3;
  double failure_grace_ = 0.5;
  double refused_since_ = -1;
  bool welcome_ = false;
  bool waiting_told_ = false;
  bool started_once_ = false;
  bool stuck_told_ = false;
  int interrupts_ = 0;
  bool leaving_ = false;
  bool running_ = false;  // workers of this generation are not all gone
  Assignment assignment_;
  std::vector<std::pair<Failure, double>> to_report_;  // and when it was noticed
  std::set<std::string> said_here_;  // messages that workers of this generation have printed
  int64_t ok_ = 0, saved_ = 0, other_ = 0;
  bool finished_ = false;
  double finished_at_ = 0;
  int exit_code_ = 1;
};

}  // namespace lh
