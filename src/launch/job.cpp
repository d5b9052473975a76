#include "launch/job.h"

#include <algorithm>
#include <deque>

#include "base/error.h"
#include "launch/host_names.h"

namespace lh {
namespace {

constexpr double kLeaseMargin = 0.5;  // seconds for a lost node to notice and to kill

std::string plural(int64_t count, const std::string& word) {
  return fmt::format("{} {}{}", count, word, count == 1 ? "" : "s");
}

}  // namespace

Job::Job(JobOptions options, double now) : options_(std::move(options)), gather_since_(now) {}

std::vector<Job::Output> Job::take_output() {
  return std::exchange(output_, {});
}

void Job::receive(NodeId from, const std::string& peer, const Message& message, double now) {
  if (message.kind == "hello") {
    if (nodes_.contains(from)) throw ProtocolError("a second hello");
    hello(from, message, now);
    return;
  }
  const auto found = nodes_.find(from);
  if (found == nodes_.end())
    fail<ProtocolError>("'{}' from {} before its hello", message.kind, peer);
  Node& node = found->second;
  node.heard = now;
  if (message.kind == "beat" || phase_ == Phase::kOver) return;
  if (message.kind == "leaving") {
    // A signal came to this launcher, or a worker of it saved and left.
    const std::string why = message.short_text("reason");
    node.leaving = true;
    if (!node.member && phase_ != Phase::kGathering) {
      finish_node(from, 75, "left before its turn came", nullptr);
      return;
    }
    signalled_ = true;
    if (phase_ == Phase::kRunning || phase_ == Phase::kStopping)
      begin_stop(Stop::kLeaving, options_.grace, fmt::format("{} on {}", why, node.host));
    else
      decide(now);
    return;
  }
  // The rest is about a generation, and late words about an earlier one do not count.
  if (message.number("generation", 0) != generation_ || !node.member) return;
  if (message.kind == "port") {
    if (phase_ != Phase::kChoosingPort || from != members_.front()) return;
    const auto size = static_cast<int64_t>(members_.size());
    if (size < std::min(available(), options_.max_nodes))
      gather(now);  // one came meanwhile
    else
      start(message.number("port", 1, 65535));
  } else if (message.kind == "failed") {
    // One that ended after it was told to stop can only explain a failure, not be one.
    if (message.number("late", 0, 1) != 0 && stop_ != Stop::kFailure) return;
    Failure failure = get_failure(message);
    failure.time = now - message.seconds("age");
    failures_.push_back(failure);
    begin_stop(Stop::kFailure, options_.failure_grace, "");
  } else if (message.kind == "ended") {
    node.ended = true;
    node.ok = message.number("ok", 0);
    node.saved = message.number("saved", 0);
    node.other = message.number("other", 0);
    settle(now);
  } else {
    fail<ProtocolError>("unknown message '{}'", message.kind);
  }
}

void Job::hello(NodeId from, const Message& m, double now) {
  Node node;
  node.host = m.short_text("host");
  node.launcher = m.short_text("launcher");
  node.address = m.short_text("address");
  node.pid = m.number("pid", 0);
  node.workers = m.number("workers", 1, 1 << 20);
  node.wanted_rank = m.number("node_rank", -1, 1 << 20);
  node.heard = node.beaten = now;
  if (phase_ == Phase::kOver)
    return refuse(from, fmt::format("job '{}' is over", options_.job_id), true);
  if (m.text("job") != options_.job_id)
    return refuse(from,
                  fmt::format("this is the coordinator of job '{}', not of '{}': give every "
                              "node the same --rdzv-id, and every job its own endpoint",
                              options_.job_id, m.short_text("job")),
                  false);
  if (options_.max_nodes == 1 && !nodes_.empty())
    return refuse(from,
                  fmt::format("here runs job '{}' of one node, started on {} by process {}: give every job its own "
                              "endpoint",
                              options_.job_id, nodes_.begin()->second.host, nodes_.begin()->second.pid),
                  false);
  const std::string asked = fmt::format("--nnodes {}:{} --max-restarts {}", m.number("min_nodes"),
                                        m.number("max_nodes"), m.number("max_restarts"));
  const std::string ours = fmt::format("--nnodes {}:{} --max-restarts {}", options_.min_nodes,
                                       options_.max_nodes, options_.max_restarts);
  if (asked != ours)
    return refuse(
        from,
        fmt::format("this job runs with {}, not with {}: give every node the same", ours, asked),
        false);
  for (const auto& [id, other] : nodes_) {
    if (node.wanted_rank < 0 || other.wanted_rank != node.wanted_rank) continue;
    // A node that was killed and started again may come before its old self is found dead.
    const bool silent = now - other.heard > 2 * options_.beat_every;
    return refuse(from,
                  fmt::format("--node-rank {} is taken by {}: give every node its own",
                              node.wanted_rank, other.host),
                  silent);
  }
  nodes_[from] = node;
  send(from, Message("welcome")
                 .with("beat_every", options_.beat_every)
                 .with("lost_after", options_.lost_after)
                 .with("failure_grace", options_.failure_grace)
                 .with("spare", int64_t{phase_ != Phase::kGathering &&
                                        static_cast<int64_t>(members_.size()) >= options_.max_nodes}));
  if (phase_ == Phase::kGathering) {
    try_to_form(now);
  } else if (phase_ == Phase::kRunning &&
             static_cast<int64_t>(members_.size()) < options_.max_nodes) {
    const bool finishing = std::any_of(members_.begin(), members_.end(), [&](NodeId id) {
      const auto member = nodes_.find(id);
      return member == nodes_.end() || member->second.ended;
    });
    // Otherwise the newcomer waits; so does one beyond MAX, as a spare.
    if (!finishing)
      begin_stop(Stop::kMembership, options_.grace, fmt::format("{} joins", node.host));
  }
}

void Job::refuse(NodeId to, const std::string& reason, bool retry) {
  Message message("refuse");
  message.with("reason", reason).with("retry", int64_t{retry});
  output_.push_back({to, message, true});
}

void Job::closed(NodeId from, double now) {
  if (nodes_.contains(from)) lose(from, "its launcher closed the connection without a word", now);
}

void Job::lose(NodeId id, const std::string& how, double now) {
  Node node = nodes_.at(id);
  nodes_.erase(id);
  output_.push_back({id, Message("beat"), true});  // no more beats: its lease runs out
  if (phase_ == Phase::kOver) return;
  if (node.member && (phase_ == Phase::kRunning || phase_ == Phase::kStopping)) {
    // It may be cut off rather than dead. It kills its workers when it has heard nothing for
    // lost_after seconds; until then no other worker may run.
    lease_until_ =
        std::max(lease_until_, now + options_.lost_after + options_.failure_grace + kLeaseMargin);
    const auto place = std::find(members_.begin(), members_.end(), id);
    Failure failure;
    failure.host = node.host;
    failure.node = place - members_.begin();
    failure.pid = node.pid;
    failure.message = how;
    failure.time = node.heard;
    if (!node.ended || node.other > 0 || node.launcher == options_.launcher) {
      failures_.push_back(failure);
      begin_stop(Stop::kFailure, options_.failure_grace, "");
    }  // else its workers were done, and the others go on
    settle(now);
  } else if (phase_ == Phase::kChoosingPort && node.member) {
    gather(now);
  } else if (phase_ == Phase::kGathering) {
    enough_since_ = available() >= options_.min_nodes ? enough_since_ : -1;
  }
}

void Job::tick(double now) {
  // This process itself may have been stopped for a while: then nobody's silence means anything.
  const double pause = ticked_ > 0 && now - ticked_ > options_.lost_after / 3 ? now - ticked_ : 0;
  ticked_ = now;
  std::vector<NodeId> silent;
  for (auto& [id, node] : nodes_) node.heard = std::min(now, node.heard + pause);
  for (auto& [id, node] : nodes_) {
    if (now - node.heard > options_.lost_after)
      silent.push_back(id);
    else if (now - node.beaten >= options_.beat_every) {
      node.beaten = now;
      send(id, Message("beat"));
    }
  }
  for (const NodeId id : silent)
    lose(id, fmt::format("nothing heard from it for {:.1f} s", options_.lost_after), now);
  if (phase_ == Phase::kGathering) try_to_form(now);
}

int64_t Job::available() const {
  return std::count_if(nodes_.begin(), nodes_.end(),
                       [](const auto& entry) { return !entry.second.leaving; });
}

void Job::gather(double now) {
  phase_ = Phase::kGathering;
  stop_ = Stop::kNone;
  gather_since_ = now;
  enough_since_ = -1;
  members_.clear();
  failures_.clear();
  signalled_ = false;
  for (auto& [id, node] : nodes_) {
    node.member = node.ended = false;
    node.ok = node.saved = node.other = 0;
  }
  try_to_form(now);
}

/// Nodes that ask for a rank come in its order, the others by host name, then by arrival.
bool Job::comes_before(NodeId a, NodeId b) const {
  const Node& x = nodes_.at(a);
  const Node& y = nodes_.at(b);
  const auto rank = [](const Node& n) { return n.wanted_rank < 0 ? INT64_MAX : n.wanted_rank; };
  if (rank(x) != rank(y)) return rank(x) < rank(y);
  if (x.host != y.host) return natural_less(x.host, y.host);
  return a < b;
}

/// A rank that a node asks for is its place; the others, who stand behind in members_, take the places before it.
void Job::fill_places() {
  const auto others = std::find_if(members_.begin(), members_.end(),
                                   [&](NodeId id) { return nodes_.at(id).wanted_rank < 0; });
  std::deque<NodeId> asking(members_.begin(), others), free(others, members_.end());
  members_.clear();
  while (!asking.empty() || !free.empty()) {
    const bool is_next = !asking.empty() &&
                         nodes_.at(asking.front()).wanted_rank <= static_cast<int64_t>(members_.size());
    std::deque<NodeId>& from = is_next || free.empty() ? asking : free;
    members_.push_back(from.front());
    from.pop_front();
  }
}

void Job::try_to_form(double now) {
  const int64_t count = available();
  if (count < options_.min_nodes) {
    enough_since_ = -1;
    if (now - gather_since_ < options_.join_timeout) return;
    std::string hosts;
    for (const auto& [id, node] : nodes_) hosts += (hosts.empty() ? "" : ", ") + node.host;
    return finish(
        1, fmt::format("rendezvous: {} of {} after {:.0f} s ({}){}; start the launcher on "
                       "the others, with the same endpoint and job id",
                       count, plural(options_.min_nodes, "node"), options_.join_timeout, hosts,
                       because_.empty() ? "" : " after " + because_));
  }
  if (enough_since_ < 0) enough_since_ = now;
  // Later generations take who is there: whoever comes late joins with the next.
  const double patience = generation_ == 0 && count < options_.max_nodes ? options_.last_call : 0;
  if (now - enough_since_ < patience || now < lease_until_) return;
  members_.clear();
  for (const auto& [id, node] : nodes_)
    if (!node.leaving) members_.push_back(id);
  std::sort(members_.begin(), members_.end(),
            [&](NodeId a, NodeId b) { return comes_before(a, b); });
  fill_places();
  if (count > options_.max_nodes) members_.resize(static_cast<size_t>(options_.max_nodes));
  for (const NodeId id : members_) nodes_.at(id).member = true;
  phase_ = Phase::kChoosingPort;
  send(members_.front(), Message("pick_port").with("generation", generation_));
}

void Job::start(int64_t port) {
  phase_ = Phase::kRunning;
  int64_t world = 0, first_rank = 0;
  for (const NodeId id : members_) world += nodes_.at(id).workers;
  for (size_t i = 0; i < members_.size(); ++i) {
    send(members_[i], Message("start")
                          .with("generation", generation_)
                          .with("because", because_)
                          .with("node", static_cast<int64_t>(i))
                          .with("nodes", static_cast<int64_t>(members_.size()))
                          .with("first_rank", first_rank)
                          .with("world_size", world)
                          .with("master_addr", nodes_.at(members_.front()).address)
                          .with("master_port", port));
    first_rank += nodes_.at(members_[i]).workers;
  }
}

void Job::begin_stop(Stop why, double grace, const std::string& reason) {
  if (why <= stop_) return;
  stop_ = why;
  phase_ = Phase::kStopping;
  for (const NodeId id : members_)
    if (nodes_.contains(id))
      send(id, Message("stop")
                   .with("generation", generation_)
                   .with("grace", grace)
                   .with("reason", reason));
}

void Job::settle(double now) {
  if (phase_ != Phase::kRunning && phase_ != Phase::kStopping) return;
  for (const NodeId id : members_)
    if (const auto found = nodes_.find(id); found != nodes_.end() && !found->second.ended) return;
  decide(now);
}

/// Whether those that stay can be a job without those that leave.
bool Job::can_go_on() const {
  for (const auto& [id, node] : nodes_)
    if (node.leaving && node.launcher == options_.launcher) return false;
  return available() >= options_.min_nodes;
}

void Job::decide(double now) {
  int64_t ok = 0, saved = 0, other = 0;
  for (const auto& [id, node] : nodes_) {
    ok += node.ok;
    saved += node.saved;
    other += node.other;
  }
  if (stop_ == Stop::kFailure) return restart_or_fail(other, now);
  if (signalled_) {
    if (options_.min_nodes < options_.max_nodes && can_go_on()) {
      const bool started = phase_ == Phase::kRunning || phase_ == Phase::kStopping;
      dismiss_leaving();
      return started ? next_generation(now, "a node left") : gather(now);
    }
    if (other > 0)
      return finish(1,
                    fmt::format("stopped, but {} ended without saving", plural(other, "worker")));
    if (ok > 0 && saved == 0) return finish(0, "done");
    return finish(75, "stopped; run it again to resume");
  }
  // Nobody had ended when the order went out: a worker that returns 0 on SIGTERM is cut short and not done.
  if (stop_ == Stop::kMembership) return next_generation(now, "a node joined");
  finish(0, "done");
}

void Job::restart_or_fail(int64_t ended_badly, double now) {
  const Failure cause = root_cause(failures_);
  // A lost node leaves a smaller job, which costs no restart; it can't happen for ever.
  const bool shrinks = cause.is_node_loss() && can_go_on();
  const bool elastic = options_.min_nodes < options_.max_nodes;
  const bool stopped = signalled_ && !(elastic && can_go_on());
  if (stopped || (!shrinks && restarts_used_ >= options_.max_restarts)) {
    const int64_t rest = ended_badly - (cause.is_node_loss() ? 0 : 1);
    const std::string others =
        rest <= 0 ? "" : fmt::format(" ({} ended because of it)", plural(rest, "other worker"));
    return finish(1, fmt::format("root cause: {}{}", describe(cause), others), &cause);
  }
  dismiss_leaving();
  if (shrinks) return next_generation(now, describe(cause));
  ++restarts_used_;
  next_generation(now, fmt::format("{}; restart {} of {}", describe(cause), restarts_used_,
                                   options_.max_restarts));
}

/// Nodes that wanted to leave may go; what they return is about their own workers.
void Job::dismiss_leaving() {
  for (const auto& [id, node] : nodes_)
    if (node.leaving)
      finish_node(id, node.other > 0 ? 1 : 75,
                  node.other > 0 ? "left without saving" : "left; run it again to resume", nullptr);
}

void Job::next_generation(double now, const std::string& because) {
  ++generation_;
  because_ = because;
  gather(now);
  if (phase_ != Phase::kGathering || available() >= options_.min_nodes) return;
  for (const auto& [id, node] : nodes_)
    send(id, Message("note").with("text", fmt::format("{}; waiting up to {:.0f} s for {}", because,
                                                      options_.join_timeout,
                                                      plural(options_.min_nodes - available(), "more node"))));
}

void Job::finish_node(NodeId id, int code, const std::string& text, const Failure* failure) {
  Message message("finish");
  message.with("code", int64_t{code}).with("text", text);
  message.with("has_failure", int64_t{failure != nullptr});
  if (failure != nullptr) put_failure(message, *failure);
  send(id, message);
}

void Job::finish(int code, const std::string& text, const Failure* failure) {
  phase_ = Phase::kOver;
  for (const auto& [id, node] : nodes_) finish_node(id, code, text, failure);
}

}  // namespace lh
