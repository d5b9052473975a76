#include "backend/cuda/kernel_call.h"

namespace lh::cuda {

void fail_in(std::string_view op, std::initializer_list<const Tensor*> operands,
             const char* reason) {
  std::string list;
  for (const Tensor* t : operands)
    if (t->defined()) list += (list.empty() ? "" : ", ") + t->str();
  fail("[{}] {}\noperands: {}", op, reason, list);
}

}  // namespace lh::cuda
