// What a backend derives from the operands of a call and keeps with them (arrays on the device).
#pragma once

namespace lh {

struct BackendState {
  virtual ~BackendState() = default;
};

}  // namespace lh
