#include "backend/cuda/kernel_call.h"

#include <cstdlib>

namespace lh::cuda {

bool synchronous() {
  static const bool wanted = [] {
    const char* value = std::getenv("LH_CUDA_SYNC");
    return value != nullptr && std::string_view(value) == "1";
  }();
  return wanted;
}

void fail_in(std::string_view op, std::initializer_list<const Tensor*> operands,
             const char* reason) {
  std::string list;
  for (const Tensor* t : operands)
    if (t->defined()) list += (list.empty() ? "" : ", ") + t->str();
  fail("[{}] {}\noperands: {}", op, reason, list);
}

}  // namespace lh::cuda
