// The same values in the memory of another device.
#pragma once

#include "autograd/variable.h"

namespace lh {

/// x on `device`; x itself where it is there already. The gradient goes back.
Variable transfer(const Variable& x, Device device);

}  // namespace lh
