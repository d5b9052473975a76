#include "mixers/cached_attention.h"

#include <algorithm>

#include "backend/elementwise.h"

namespace lh {

int64_t cache_rows(const AttentionMask& mask, int64_t max_tokens) {
  return mask.window == 0 ? max_tokens : std::min(max_tokens, mask.sinks + 2 * mask.window);
}

Tensor attend_cached(const Tensor& k, const Tensor& v, const AttentionMask& mask, double scale,
                     KeyValueCache& past, const AttendRows& attend) {
  const int64_t rows = k.size(0);
  Tensor heads;
  // New rows enter at most a window at a time. Dropping rows between the sinks and the window
  // shifts all later rows alike, so the mask over the kept rows stays the mask over positions.
  for (int64_t begin = 0; begin < rows;) {
    const int64_t count = mask.window == 0 ? rows : std::min(rows - begin, mask.window);
    if (mask.window > 0 && past.length() + count > past.capacity())
      past.erase(mask.sinks, past.length() - (mask.window - 1));
    const int64_t seen = past.length();
    past.append(k.slice(0, begin, begin + count), v.slice(0, begin, begin + count));
    auto plan = std::make_shared<AttentionPlan>();
    plan->segments = {{0, count, 0, past.length(), seen}};
    plan->mask = mask;
    plan->scale = scale;
    const Tensor part = attend(begin, count, past.keys(), past.values(), std::move(plan));
    if (count == rows) return part;
    if (!heads.defined())
      heads = Tensor::empty({rows, part.size(1), part.size(2)}, part.dtype(), part.device());
    Tensor out = heads.slice(0, begin, begin + count);
    LH_DISPATCH(out.device(), "cache", copy(part, out));
    begin += count;
  }
  return heads;
}

}  // namespace lh
