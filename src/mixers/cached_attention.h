// Feeding new rows through attention over a key-value cache, for mixers whose state is keys and
// values: the whole past, or a window of it with sinks.
#pragma once

#include <functional>

#include "mixers/key_value_cache.h"

namespace lh {

/// Rows the cache of one sequence needs: all, or the sinks and two windows, so that rows move down
/// only once in `window` tokens.
int64_t cache_rows(const AttentionMask& mask, int64_t max_tokens);

/// Heads' outputs [count, H, d] of the query rows [begin, begin + count) against the keys and values
/// in the cache; the plan has one segment.
using AttendRows = std::function<Tensor(int64_t begin, int64_t count, const Tensor& keys,
                                        const Tensor& values,
                                        std::shared_ptr<const AttentionPlan> plan)>;

/// Appends k and v [n, G, d] and returns attend's rows [n, H, d], in pieces of at most a window.
Tensor attend_cached(const Tensor& k, const Tensor& v, const AttentionMask& mask, double scale,
                     KeyValueCache& past, const AttendRows& attend);

}  // namespace lh
