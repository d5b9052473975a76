// The coordinator's mind: which nodes are in the job, which generation runs, when it starts again
// and when it is over. No sockets and no clock: messages, losses and the time are passed in, and
// what to send comes out, so every course of events can be tested.
//
// A generation is one start of all workers on a fixed set of nodes. It ends for all nodes or for
// none: when a worker fails, a node is lost, leaves or joins, every node stops its workers, and
// only when all have said so (or their lease has run out, see lose()) may the next one start.
//
//   node -> job   hello, port, failed, leaving, ended, beat
//   job -> node   welcome, refuse, pick_port, start, stop, finish, beat
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "launch/failure.h"
#include "launch/message.h"

namespace lh {

struct JobOptions {
  std::string job_id;
  std::string launcher;  // in which the coordinator lives: the job ends when that one leaves
  int64_t min_nodes = 1;
  int64_t max_nodes = 1;
  int64_t max_restarts = 0;
  double join_timeout = 600;
  double last_call = 30;
  double beat_every = 0.5;
  double lost_after = 3;
  double grace = 30;
  double failure_grace = 0.5;
};

class Job {
 public:
  using NodeId = int64_t;  // of a connection; never used twice
  struct Output {
    NodeId to;
    Message message;
    bool close_after = false;
  };

  Job(JobOptions options, double now);

  /// A message from a node. ProtocolError when it makes no sense: then drop the connection.
  void receive(NodeId from, const std::string& peer, const Message& message, double now);
  /// The connection is gone.
  void closed(NodeId from, double now);
  /// Lets time pass; call it several times per beat.
  void tick(double now);

  std::vector<Output> take_output();
  bool over() const { return phase_ == Phase::kOver; }

 private:
  enum class Phase { kGathering, kChoosingPort, kRunning, kStopping, kOver };
  enum class Stop { kNone, kMembership, kLeaving, kFailure };  // a stronger one takes over
  struct Node {
    std::string host, launcher, address;
    int64_t pid = 0, workers = 0, wanted_rank = -1;
    double heard = 0;
    double beaten = 0;  // when it was last sent a beat
    bool leaving = false;
    bool member = false;                   // of the current generation
    bool ended = false;                    // its workers of this generation are gone
    int64_t ok = 0, saved = 0, other = 0;  // how they ended
  };

  void hello(NodeId from, const Message& message, double now);
  void refuse(NodeId to, const std::string& reason, bool retry);
  void gather(double now);
  void try_to_form(double now);
  void start(int64_t port);
  /// Each node prints the reason; "" where the root cause is yet to come.
  void begin_stop(Stop why, double grace, const std::string& reason);
  void lose(NodeId id, const std::string& how, double now);
  void settle(double now);
  void decide(double now);
  bool can_go_on() const;
  void restart_or_fail(int64_t ended_badly, double now);
  void dismiss_leaving();
  void next_generation(double now, const std::string& because);
  void finish_node(NodeId id, int code, const std::string& text, const Failure* failure);
  void finish(int code, const std::string& text, const Failure* failure = nullptr);
  bool comes_before(NodeId a, NodeId b) const;
  void fill_places();
  int64_t available() const;
  void send(NodeId to, Message message) { output_.push_back({to, std::move(message)}); }

  JobOptions options_;
  Phase phase_ = Phase::kGathering;
  Stop stop_ = Stop::kNone;
  std::map<NodeId, Node> nodes_;
  std::vector<NodeId> members_;  // in GROUP_RANK order; a lost one stays until the next generation
  std::vector<Failure> failures_;
  int64_t generation_ = 0;
  int64_t restarts_used_ = 0;
  bool signalled_ = false;
  std::string because_;  // why this generation follows the one before
  double ticked_ = 0;
  double gather_since_;
  double enough_since_ = -1;
  double lease_until_ = 0;  // until then a lost node's workers may still be alive
  std::vector<Output> output_;
};

}  // namespace lh
