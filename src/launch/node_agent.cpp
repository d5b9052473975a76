#include "launch/node_agent.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>

#include "base/error.h"
#include "base/interface_address.h"
#include "launch/error_file.h"

namespace lh {
namespace {

constexpr int kSaved = 75;             // a worker stopped after saving (EX_TEMPFAIL)
constexpr double kWelcomeWithin = 10;  // seconds; else what listens there is no coordinator
constexpr double kRetryRefused = 10;   // seconds to try again where a refusal may pass
constexpr double kLinger = 3;          // seconds for the other nodes to hear that the job is over
constexpr double kTellWaiting = 5;
constexpr double kTellStuck = 5;  // seconds after SIGKILL
constexpr double kGiveUpStuck = 60;
constexpr double kDoubt = 0.2;  // seconds; see report_due

std::string host_name() {
  char name[256] = "?";
  ::gethostname(name, sizeof name - 1);
  return name;
}

JobOptions job_options(const LaunchPlan& plan, const std::string& launch_id) {
  JobOptions job;
  job.job_id = plan.job_id;
  job.launcher = launch_id;
  job.min_nodes = plan.min_nodes;
  job.max_nodes = plan.max_nodes;
  job.max_restarts = plan.options.max_restarts;
  job.join_timeout = plan.join_timeout;
  job.last_call = plan.last_call;
  job.beat_every = plan.beat_every;
  job.lost_after = plan.lost_after;
  job.grace = plan.options.grace;
  job.failure_grace = plan.options.failure_grace;
  return job;
}

}  // namespace

NodeAgent::NodeAgent(EventLoop& loop, const LaunchPlan& plan, const std::string& program,
                     const std::string& launch_id, Guard& guard, Console& console)
    : loop_(loop),
      plan_(plan),
      program_(program),
      launch_id_(launch_id),
      host_(host_name()),
      guard_(guard),
      console_(console),
      logs_(plan),
      workers_(guard, launch_id),
      rendezvous_(loop, plan, job_options(plan, launch_id)),
      started_(monotonic_seconds()) {
  if (logs_.kept())
    console_.say(LogLevel::kInfo, "[launch] logs of this node: " + logs_.path().string());
}

void NodeAgent::send(const Message& message) {
  if (connection_ == nullptr) return;
  connection_->send(message);
  watch_connection();
}

void NodeAgent::watch_connection() {
  const auto events = static_cast<short>(connection_->wants_write() ? POLLIN | POLLOUT : POLLIN);
  loop_.watch(connection_->fd(), events, [this](short) { read_connection(); });
}

/// Where the others reach this node: the address from which it reached the coordinator.
std::string NodeAgent::own_address() const {
  if (!plan_.options.local_addr.empty()) return plan_.options.local_addr;
  const Address own = connection_->own_address();
  // On the coordinator's own machine that may be a loopback address, which is nobody else's.
  if (!own.is_loopback() || plan_.max_nodes == 1) return own.text();
  if (plan_.host != "localhost") return plan_.host;
  const std::string other = interface_address();  // a PyTorchJob tells its master "localhost"
  return other.empty() ? plan_.host : other;
}

void NodeAgent::connected(std::unique_ptr<Connection> connection, double now) {
  connection_ = std::move(connection);
  said_hello_ = heard_ = now;
  welcome_ = false;
  send(Message("hello")
           .with("job", plan_.job_id)
           .with("host", host_)
           .with("launcher", launch_id_)
           .with("address", own_address())
           .with("pid", int64_t{::getpid()})
           .with("workers", plan_.workers)
           .with("node_rank", plan_.options.node_rank)
           .with("min_nodes", plan_.min_nodes)
           .with("max_nodes", plan_.max_nodes)
           .with("max_restarts", plan_.options.max_restarts));
}

void NodeAgent::read_connection() {
  const double now = monotonic_seconds();
  std::vector<Message> messages;
  try {
    connection_->flush();
    const bool open = connection_->receive(messages);
    for (const Message& message : messages) {
      receive(message, now);
      if (connection_ == nullptr) return;
    }
    if (!open)
      lose_connection("it closed the connection", now);
    else
      watch_connection();
  } catch (const ProtocolError& error) {
    if (welcome_) return lose_connection(error.what(), now);
    finish(1, fmt::format("what listens at {} is no coordinator of longhand launch ({}): choose "
                          "another port for --rdzv-endpoint",
                          rendezvous_.where(), error.what()));
  }
}

void NodeAgent::lose_connection(const std::string& how, double now) {
  loop_.forget(connection_->fd());
  connection_.reset();
  if (finished_) return;
  if (!welcome_) {
    rendezvous_.pause(now, 0.5);
    return;
  }
  // It may live and take this node for lost. No worker may outlast the lease.
  workers_.terminate(now, failure_grace_);
  finish(1, fmt::format("lost the coordinator at {}: {}; this node's workers are stopped",
                        rendezvous_.where(), how));
}

void NodeAgent::receive(const Message& m, double now) {
  heard_ = now;
  // From here on this node may be taken for lost lost_after seconds later, and its workers must
  // not be there any more when the others start again: whatever happens to this process.
  if (welcome_ && plan_.max_nodes > 1 && now - renewed_ > beat_every_ / 2) {
    renewed_ = now;
    guard_.lease(lost_after_ + failure_grace_);
  }
  if (m.kind == "welcome") {
    welcome_ = true;
    beat_every_ = m.seconds("beat_every");
    lost_after_ = m.seconds("lost_after");
    failure_grace_ = m.seconds("failure_grace");
    if (m.number("spare", 0, 1) != 0) {
      waiting_told_ = true;
      console_.say(LogLevel::kInfo,
                   fmt::format("[launch] joined at {}, where job '{}' has all its nodes: waiting as a spare",
                               rendezvous_.where(), plan_.job_id));
    }
  } else if (m.kind == "note") {
    console_.say(LogLevel::kInfo, "[launch] " + m.text("text"));
  } else if (m.kind == "refuse") {
    if (refused_since_ < 0) refused_since_ = now;
    const bool retry = m.number("retry", 0, 1) != 0 && now - refused_since_ < kRetryRefused;
    loop_.forget(connection_->fd());
    connection_.reset();
    rendezvous_.pause(now, 1);
    if (!retry) finish(1, fmt::format("{}: {}", rendezvous_.where(), m.text("reason")));
  } else if (m.kind == "pick_port") {
    send(Message("port")
             .with("generation", m.number("generation"))
             .with("port", plan_.own_master_port > 0 ? plan_.own_master_port : free_port()));
  } else if (m.kind == "start") {
    start_workers(m, now);
  } else if (m.kind == "stop") {
    if (m.number("generation") != assignment_.generation) return;
    if (!running_) return send_ended();
    if (!workers_.stopping() && !leaving_ && !m.text("reason").empty())
      console_.say(LogLevel::kInfo, "[launch] stopping: " + m.text("reason"));
    workers_.terminate(now, m.seconds("grace"));
  } else if (m.kind == "finish") {
    auto code = static_cast<int>(m.number("code", 0, 255));
    if (code == 0 && !started_once_)
      return finish(1, fmt::format("job '{}' had all its nodes and is done, the workers of this launcher never ran; "
                                   "another job needs another endpoint",
                                   plan_.job_id));
    if (running_) workers_.terminate(now, 0);
    if (m.number("has_failure", 0, 1) == 0) {
      finish(code, m.text("text"));
    } else {
      const Failure failure = get_failure(m);
      finish(code, without_repetition(m.text("text"), failure));
      pass_on_last_words(describe(failure), failure.message, failure.signal != 0 ? -failure.signal : failure.exit_code);
      if (plan_.options.propagate_exit_code && !failure.is_node_loss())
        exit_code_ = failure.signal != 0 ? 128 + failure.signal : failure.exit_code;
    }
    loop_.forget(connection_->fd());
    connection_.reset();
  }
}

/// The report of a failure, less the words that a worker has put on this console already.
std::string NodeAgent::without_repetition(std::string text, const Failure& failure) const {
  if (!said_here_.contains(failure.message)) return text;
  const std::string words = ": " + failure.message;
  const size_t at = text.find(words);
  return at == std::string::npos ? text : text.replace(at, words.size(), " with the error above");
}

void NodeAgent::start_workers(const Message& m, double now) {
  assignment_ = get_assignment(m);
  Assignment& a = assignment_;
  if (plan_.own_master_port > 0) a.master_addr = plan_.own_master_addr;
  ok_ = saved_ = other_ = 0;
  said_here_.clear();
  if (leaving_) return send_ended();  // the coordinator is about to hear of it
  running_ = started_once_ = true;
  if (a.node == 0)
    console_.say(
        LogLevel::kInfo,
        fmt::format("[launch] job '{}', generation {}: {} process{} on {} node{}, rank 0 "
                    "at {}, port {}{}{}",
                    plan_.job_id, a.generation, a.world_size, a.world_size == 1 ? "" : "es",
                    a.nodes, a.nodes == 1 ? "" : "s", a.master_addr, a.master_port,
                    m.text("because").empty() ? "" : "; after: ", m.text("because")));
  const Environment environment = current_environment();
  const char* pattern = std::getenv("TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE");
  try {
    std::vector<WorkerSpec> specs;
    for (int64_t local = 0; local < plan_.workers; ++local) {
      const auto i = static_cast<size_t>(local);
      const auto folder = logs_.worker(a.generation, local);
      const std::string hidden = plan_.shown[i] ? "" : "/dev/null";
      WorkerSpec spec;
      spec.arguments = plan_.options.command;
      spec.arguments[0] = program_;
      // Only of longhand train is it known that it unblocks the signal.
      spec.keeps_sigterm = plan_.options.command[0] == kOwnProgram && plan_.options.command.size() > 1 &&
                           plan_.options.command[1] == "train";
      spec.environment = worker_environment(environment, plan_, a, local,
                                            (folder / "error.json").string(), launch_id_);
      spec.stdout_file = plan_.to_file[i].out ? (folder / "stdout.log").string() : hidden;
      spec.stderr_file = plan_.to_file[i].err ? (folder / "stderr.log").string() : hidden;
      const std::string prefix = line_prefix(pattern != nullptr ? pattern : "", plan_.options.role,
                                             local, a.first_rank + local);
      if (plan_.to_console[i].out) console_.follow(spec.stdout_file, prefix, STDOUT_FILENO);
      if (plan_.to_console[i].err) console_.follow(spec.stderr_file, prefix, STDERR_FILENO);
      if (plan_.to_file[i].out && !plan_.stdout_words.empty())
        console_.filter(spec.stdout_file, prefix, plan_.stdout_words, folder / "../filtered_stdout.log");
      if (plan_.to_file[i].err && !plan_.stderr_words.empty())
        console_.filter(spec.stderr_file, prefix, plan_.stderr_words, folder / "../filtered_stderr.log");
      specs.push_back(std::move(spec));
    }
    workers_.start(specs);
  } catch (const Error& error) {
    ++other_;
    Failure failure;
    failure.rank = a.first_rank;
    failure.local_rank = 0;
    failure.exit_code = 127;
    failure.message = error.what();
    report(failure, 0, false);
    workers_.terminate(now, 0);
  }
}

void NodeAgent::report(const Failure& failure, double age, bool late) {
  Failure f = failure;
  f.host = host_;
  f.node = assignment_.node;
  Message message("failed");
  put_failure(message, f);
  send(message.with("generation", assignment_.generation)
           .with("age", age)
           .with("late", int64_t{late}));
}

void NodeAgent::worker_ended(const WorkerExit& exit, double now) {
  const auto local = static_cast<int64_t>(exit.worker);
  const int64_t rank = assignment_.first_rank + local;
  if (exit.signal == 0 && exit.exit_code == 0) {
    ++ok_;
    return;
  }
  if (exit.signal == 0 && exit.exit_code == kSaved) {
    ++saved_;
    if (!workers_.stopping() && !leaving_) {
      leaving_ = true;
      send(Message("leaving").with("reason", fmt::format("rank {} saved and stopped", rank)));
    }
    return;
  }
  ++other_;
  // What ends while it is stopped ends because of that, unless it says that it failed by itself: a
  // peer may notice a failure before the failed worker has cleaned up.
  if (workers_.stopping() && exit.signal != 0) return;
  const auto folder = logs_.worker(assignment_.generation, local);
  LastWords words = read_last_words(folder / "error.json");
  const auto place = static_cast<size_t>(local);
  const bool console = plan_.to_file[place].err ? plan_.to_console[place].err : plan_.shown[place];
  if (words.printed && console) said_here_.insert(words.message);
  if (workers_.stopping() && (words.message.empty() || words.consequence)) return;
  if (words.message.empty()) words.message = last_log_line(folder / "stderr.log");
  Failure failure;
  failure.rank = rank;
  failure.local_rank = local;
  failure.pid = exit.pid;
  failure.exit_code = exit.exit_code;
  failure.signal = exit.signal;
  failure.message = words.message;
  failure.consequence = words.consequence;
  to_report_.emplace_back(failure, now - words.age);
}

/// Reports what ended badly. All that ended together is reported before the rest is stopped.
void NodeAgent::report_due(double now) {
  const auto first = std::partition(to_report_.begin(), to_report_.end(), [&](const auto& entry) {
    // A scheduler may signal workers and launcher alike. Killed by such a signal, a worker is a
    // failure only if the launcher does not get it too.
    const bool doubtful = std::find(plan_.signals.begin(), plan_.signals.end(),
                                    entry.first.signal) != plan_.signals.end();
    return doubtful && !workers_.stopping() && now - entry.second < kDoubt;
  });
  const bool late = workers_.stopping();
  bool stop = false;
  for (auto entry = first; entry != to_report_.end() && !leaving_; ++entry) {
    if (late && entry->first.signal != 0) continue;
    report(entry->first, now - entry->second, late);
    stop = true;
  }
  to_report_.erase(first, to_report_.end());
  if (stop && !late) workers_.terminate(now, failure_grace_);
}

void NodeAgent::send_ended() {
  send(Message("ended")
           .with("generation", assignment_.generation)
           .with("ok", ok_)
           .with("saved", saved_)
           .with("other", other_));
}

void NodeAgent::stop_signal(int signal) {
  const double now = monotonic_seconds();
  if (signal == SIGINT && ++interrupts_ > 1) {
    // Ctrl-C again: somebody is waiting.
    workers_.terminate(now, 0);
    return finish(1, "interrupted twice: workers are killed");
  }
  if (leaving_ || finished_) return;
  leaving_ = true;
  console_.say(LogLevel::kWarn,
               fmt::format("[launch] {}: {}", signal_name(signal),
                           running_ ? fmt::format("workers have {:.0f} s to save and stop",
                                                  plan_.options.grace)
                                    : "stopping before the job has started"));
  if (running_) workers_.terminate(now, plan_.options.grace);
  if (connection_ != nullptr && welcome_)
    send(Message("leaving").with("reason", signal_name(signal)));
  else
    finish(kSaved, "stopped before the job has started");
}

void NodeAgent::finish(int code, const std::string& text) {
  if (finished_) return;
  finished_ = true;
  finished_at_ = monotonic_seconds();
  exit_code_ = code;
  console_.finish_following();
  if (code == 0) return;
  console_.say(code == kSaved ? LogLevel::kWarn : LogLevel::kError, "[launch] " + text);
}

void NodeAgent::tick() {
  const double now = monotonic_seconds();
  if (Coordinator* coordinator = rendezvous_.coordinator()) coordinator->tick();
  const std::vector<WorkerExit> exits = workers_.reap();
  for (const WorkerExit& exit : exits) worker_ended(exit, now);
  report_due(now);
  workers_.tick(now);
  if (running_ && to_report_.empty() && workers_.gone()) {
    running_ = false;
    console_.finish_following();
    send_ended();
  }
  if (running_) check_stuck(now);
  if (finished_) return;
  if (connection_ == nullptr) {
    if (auto connection = rendezvous_.tick(now)) return connected(std::move(connection), now);
    if (now - started_ > plan_.join_timeout)
      return finish(1, fmt::format("no coordinator at {} after {:.0f} s: {}", rendezvous_.where(),
                                   plan_.join_timeout, rendezvous_.problem()));
    if (!waiting_told_ && now - started_ > kTellWaiting) {
      waiting_told_ = true;
      console_.say(LogLevel::kInfo, fmt::format("[launch] waiting for the coordinator at {} ({})",
                                                rendezvous_.where(), rendezvous_.problem()));
    }
    return;
  }
  if (!welcome_ && now - said_hello_ > kWelcomeWithin)
    return finish(1,
                  fmt::format("what listens at {} does not answer like a coordinator of longhand "
                              "launch: choose another port for --rdzv-endpoint",
                              rendezvous_.where()));
  if (welcome_ && !started_once_ && !waiting_told_ && now - started_ > kTellWaiting) {
    waiting_told_ = true;
    console_.say(LogLevel::kInfo, fmt::format("[launch] joined at {}; waiting for other nodes",
                                              rendezvous_.where()));
  }
  if (now - beaten_ > beat_every_) {
    beaten_ = now;
    send(Message("beat"));
  }
  // The own coordinator shares this thread: its silence means nothing.
  if (welcome_ && rendezvous_.coordinator() == nullptr && now - heard_ > lost_after_)
    lose_connection(fmt::format("nothing heard from it for {:.1f} s", lost_after_), now);
}

/// A process in an uninterruptible wait survives SIGKILL for as long as that lasts.
void NodeAgent::check_stuck(double now) {
  const double overdue = workers_.overdue(now);
  if (overdue > kTellStuck && !stuck_told_) {
    stuck_told_ = true;
    console_.say(LogLevel::kWarn,
                 fmt::format("[launch] processes {} do not end after SIGKILL: is a "
                             "file system or a device hanging?",
                             fmt::join(workers_.pids(), " ")));
  }
  if (overdue < kGiveUpStuck) return;
  finish(1, "workers that can't be killed are left behind");
  running_ = false;
}

bool NodeAgent::done() {
  if (!finished_ || running_) return false;
  if (connection_ != nullptr) {
    loop_.forget(connection_->fd());
    connection_.reset();
  }
  Coordinator* coordinator = rendezvous_.coordinator();
  if (coordinator == nullptr || coordinator->done()) return true;
  return monotonic_seconds() - finished_at_ > kLinger;
}

}  // namespace lh
