#include "launch/failure.h"

#include <algorithm>
#include <csignal>
#include <cstring>
#include <tuple>

#include "base/error.h"

namespace lh {
namespace {

/// 0: nothing a peer does can cause it; 1: may be either; 2: said to be a consequence.
int blame(const Failure& f) {
  if (f.is_node_loss()) return 0;
  for (const int hard : {SIGSEGV, SIGKILL, SIGBUS, SIGILL, SIGFPE})
    if (f.signal == hard) return 0;
  return f.consequence ? 2 : 1;
}

}  // namespace

std::string signal_name(int signal_number) {
  const char* name = sigabbrev_np(signal_number);
  return name != nullptr ? fmt::format("SIG{}", name) : fmt::format("signal {}", signal_number);
}

std::string describe(const Failure& f) {
  const std::string said = f.message.empty() ? "" : ": " + f.message;
  if (f.is_node_loss()) return fmt::format("node {} ({}) was lost{}", f.node, f.host, said);
  std::string end = fmt::format("exited with code {}", f.exit_code);
  if (f.signal != 0) end = "was killed by " + signal_name(f.signal);
  if (f.signal == SIGKILL && said.empty()) end += " (out of memory, or by hand)";
  return fmt::format("rank {} (local rank {} of node {}, {}, pid {}) {}{}", f.rank, f.local_rank,
                     f.node, f.host, f.pid, end, said);
}

const Failure& root_cause(std::span<const Failure> failures) {
  LH_CHECK(!failures.empty(), "[launch] no failure to choose from");
  const auto key = [](const Failure& f) { return std::tuple(blame(f), f.time, f.rank); };
  return *std::min_element(failures.begin(), failures.end(),
                           [&](const auto& a, const auto& b) { return key(a) < key(b); });
}

void put_failure(Message& m, const Failure& f) {
  m.with("host", f.host)
      .with("node", f.node)
      .with("rank", f.rank)
      .with("local_rank", f.local_rank)
      .with("pid", f.pid)
      .with("exit_code", int64_t{f.exit_code})
      .with("signal", int64_t{f.signal})
      .with("message", f.message)
      .with("consequence", int64_t{f.consequence});
}

Failure get_failure(const Message& m) {
  Failure f;
  f.host = m.short_text("host");
  f.node = m.number("node", -1, 1 << 20);
  f.rank = m.number("rank", -1, 1 << 30);
  f.local_rank = m.number("local_rank", -1, 1 << 20);
  f.pid = m.number("pid", 0);
  f.exit_code = static_cast<int>(m.number("exit_code", 0, 255));
  f.signal = static_cast<int>(m.number("signal", 0, 255));
  f.message = m.short_text("message", 16 << 10);
  f.consequence = m.number("consequence", 0, 1) != 0;
  return f;
}

}  // namespace lh
