// How a job can fail: a worker that ended badly, or a node that was lost; and which of several
// failures was the cause of the others.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "launch/message.h"

namespace lh {

struct Failure {
  std::string host;
  int64_t node = -1;  // GROUP_RANK
  int64_t rank = -1;  // -1: the node itself was lost
  int64_t local_rank = -1;
  int64_t pid = 0;
  int exit_code = 0;
  int signal = 0;            // not 0: this signal ended the worker
  std::string message;       // in the worker's own words; for a node, how it was lost
  bool consequence = false;  // the worker says that another's end ended it
  double time = 0;           // seconds, on the coordinator's clock

  bool is_node_loss() const { return rank < 0; }
};

/// One line: "rank 3 (local rank 1 of node 1, gpu07, pid 812) exited with code 7: out of memory".
std::string describe(const Failure& failure);

/// The failure that the others followed from; `failures` is not empty. Ends that no peer can bring
/// about (a lost node, SIGSEGV, SIGKILL ...) come before plain errors, those before errors that
/// say they are consequences, and within each group the earliest counts.
const Failure& root_cause(std::span<const Failure> failures);

/// On the wire, as fields of `message`; the time travels as an age, so clocks need not agree.
void put_failure(Message& message, const Failure& failure);
Failure get_failure(const Message& message);

/// "SIGSEGV" for 11; "signal 42" for what has no common name.
std::string signal_name(int signal_number);

}  // namespace lh
