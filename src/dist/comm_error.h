// What went wrong between processes.
#pragma once

#include "base/error.h"

namespace lh {

/// A peer died, is elsewhere, took too long, or cannot be reached. The communicator that threw it is of
/// no use any more.
class CommError : public Error {
 public:
  using Error::Error;
};

/// Another process failed first: what() is its reason, which it reports itself.
class PeerFailure : public CommError {
 public:
  PeerFailure(const std::string& reason, int exit_code) : CommError(reason), exit_code_(exit_code) {}
  /// With which that process ends, and so all do.
  int exit_code() const { return exit_code_; }

 private:
  int exit_code_;
};

/// A signal ended a wait for the other processes before they had begun.
class CommInterrupted : public CommError {
 public:
  using CommError::CommError;
};

/// The other side of this is a thread of the same process that gave the group up.
class CommAbandoned : public CommError {
 public:
  using CommError::CommError;
};

}  // namespace lh
