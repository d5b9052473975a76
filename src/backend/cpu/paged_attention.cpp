// Attention over pages: few rows by chunks of keys where they lie; f64 and many query heads from keys that
// are put in a row first.
#include "backend/paged_attention.h"

#include <algorithm>
#include <cstring>

#include "backend/cpu/attention_chunks.h"
#include "backend/cpu/paged_rows.h"
#include "backend/paged_operands.h"

namespace lh::cpu {
namespace {

/// [rows, 1, d] of all keys of all sequences.
Tensor in_a_row(const Tensor& pool, const PagedRows& rows, const AttentionPlan& plan) {
  const AttentionSegment& last = plan.segments.back();
  const int64_t d = pool.size(2), bytes = d * static_cast<int64_t>(dtype_size(pool.dtype()));
  const Tensor all = Tensor::empty({last.key_begin + last.key_length, 1, d}, pool.dtype());
  for (const AttentionSegment& s : plan.segments) {
    char* to = all.raw() + s.key_begin * bytes;
    rows.for_each_run(s.query_begin, 0, s.key_length, [&](int64_t row, int64_t count) {
      std::memcpy(to, pool.raw() + row * bytes, static_cast<size_t>(count * bytes));
      to += count * bytes;
    });
  }
  return all;
}

}  // namespace

void paged_attention(const Tensor& q, const PagedKeys& keys, double scale, Tensor& out,
                     Tensor& lse) {
  check_paged_attention(q, keys, scale, out, lse, "paged_attention");
  const PagedRows rows(keys);
  AttentionPlan plan;
  plan.scale = scale;
  int64_t first = 0;
  for (int64_t s = 0; s < q.size(0); ++s) {
    const int64_t length = keys.lengths.data<int32_t>()[s];
    if (length > 0) rows.check(s, length - 1);
    plan.segments.push_back({s, 1, first, length, length - 1});
    first += length;
  }
  if (plan.segments.empty()) return;
  if (!is_decoding(plan.segments[0], q.size(1), q.dtype()))
    return attention_forward(q, in_a_row(keys.k, rows, plan), in_a_row(keys.v, rows, plan), plan,
                             out, lse);
  AttentionCall<float> call{plan, tile_ops<float>(q.dtype()), q.device()};
  call.q = HeadRows(q);
  call.k = HeadRows(keys.k.reshape({-1, 1, keys.k.size(2)}));
  call.v = HeadRows(keys.v.reshape({-1, 1, keys.v.size(2)}));
  call.out = HeadRows(out);
  call.lse = lse.data<float>();
  call.pages = &rows;
  call.heads = call.group = q.size(1);
  call.kv_heads = 1;
  std::vector<int> all(plan.segments.size());
  for (size_t s = 0; s < all.size(); ++s) all[s] = static_cast<int>(s);
  forward_decode(call, all, q.dtype());
}

}  // namespace lh::cpu
