#include "backend/cpu/attention_internal.h"

namespace lh::cpu {
bool is_decoding(const AttentionSegment&, int64_t, DType) {
  return false;
}
void forward_decode(const AttentionCall<float>&, const std::vector<int>&, DType) {}
}  // namespace lh::cpu
