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

/// The other side of this is a thread of the same process that gave the group up.
class CommAbandoned : public CommError {
 public:
  using CommError::CommError;
};

}  // namespace lh
