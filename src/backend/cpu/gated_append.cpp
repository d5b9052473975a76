// Append to self-pruned caches, one token after the other. Rows are copied: nothing to share out.
#include "backend/gated_append.h"

#include <cstring>

#include "backend/cpu/paged_rows.h"
#include "backend/paged_operands.h"

namespace lh::cpu {
namespace {

/// Row `from` [d] of new keys or values to row `to` of their pool, what was there to row `kept` unless
/// that is negative.
void replace(const Tensor& pool, int64_t to, int64_t kept, const char* from) {
  const auto bytes = pool.size(2) * static_cast<int64_t>(dtype_size(pool.dtype()));
  const auto size = static_cast<size_t>(bytes);
  if (kept >= 0) std::memcpy(pool.raw() + kept * bytes, pool.raw() + to * bytes, size);
  std::memcpy(pool.raw() + to * bytes, from, size);
}

const char* row_of(const Tensor& t, int64_t token, int64_t head) {
  return t.slice(0, token, token + 1).slice(1, head, head + 1).raw();
}

}  // namespace

void gated_append(const Tensor& k, const Tensor& v, const Tensor& gates, GatedCache& cache) {
  check_gated_append(k, v, gates, cache, "gated_append");
  const PagedRows rows(cache.keys);
  const int64_t window = cache.bits.size(1);
  dispatch_float(gates.dtype(), "gated_append", [&]<typename T>() {
    for (int64_t head = 0; head < k.size(1); ++head) {
      int32_t& seen = cache.seen.data<int32_t>()[head];
      int32_t& length = cache.keys.lengths.data<int32_t>()[head];
      uint8_t* bits = cache.bits.data<uint8_t>() + head * window;
      for (int64_t token = 0; token < k.size(0); ++token, ++seen) {
        const int64_t place = seen % window;
        const bool full = seen >= window, keeps = full && bits[place] != 0;
        int64_t kept = -1;
        if (keeps || !full) rows.check(head, length);
        if (keeps) kept = rows.row(head, length);
        if (keeps || !full) ++length;
        replace(cache.keys.k, rows.row(head, place), kept, row_of(k, token, head));
        replace(cache.keys.v, rows.row(head, place), kept, row_of(v, token, head));
        bits[place] = static_cast<accumulate_t<T>>(gates.data<T>()[token * k.size(1) + head]) == 0;
      }
    }
  });
}

}  // namespace lh::cpu
