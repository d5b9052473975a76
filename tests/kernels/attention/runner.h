// Runs the attention launchers on an AttentionCase: buffers of exact size, strided rows, schedule.
#pragma once
#include "kernels/attention/attention.h"
#include "kernels/attention/attention_sm90.h"
#include "kernels/attention/closed_runs.h"
#include "kernels/attention/open_keys.h"
#include "kernels/attention/reference.h"
#include "kernels/attention/schedule.h"

namespace lh::test {

/// Rows of `width` elements that lie `stride` apart; what is between them stays NaN.
template <class T>
struct Rows {
  int rows, width;
  std::int64_t stride;
  Buffer<T> buffer;

  Rows(int rows_, int width_, int gap = 0)
      : rows(rows_), width(width_), stride(width_ + gap), buffer(size()) {}
  Rows(const std::vector<T>& dense, int width_, int gap)
      : Rows(static_cast<int>(dense.size()) / width_, width_, gap) {
    std::vector<T> all = buffer.host();
    for (int r = 0; r < rows; ++r) {
      std::copy_n(dense.begin() + std::int64_t{r} * width, width, all.begin() + r * stride);
    }
    xpu::copy_in(buffer.get(), all.data(), all.size() * sizeof(T));
  }
  /// Makes the rows that are not `used` NaN.
  void poison(const std::vector<bool>& used) {
    std::vector<T> all = buffer.host();
    for (int r = 0; r < rows; ++r) {
      if (used[std::size_t(r)]) continue;
      std::fill_n(all.begin() + r * stride, width, xpu::from_float<T>(std::nanf("")));
    }
    if (!all.empty()) xpu::copy_in(buffer.get(), all.data(), all.size() * sizeof(T));
  }
  /// No gap after the last row, so that a read past it leaves the buffer.
  std::size_t size() const {
    return rows == 0 ? 0 : static_cast<std::size_t>((rows - 1) * stride + width);
  }
  T* get() const { return buffer.get(); }
  std::vector<double> dense() const {
    const std::vector<T> all = buffer.host();
    std::vector<double> out;
    for (int r = 0; r < rows; ++r) {
      for (int i = 0; i < width; ++i) {
        out.push_back(xpu::to_float(all[static_cast<std::size_t>(r * stride + i)]));
      }
    }
    return out;
  }
};

/// A case on the device, with what both passes write.
template <class T>
class AttentionRun {
 public:
  AttentionRun(const AttentionCase& c, unsigned seed, int gap, bool with_bias, bool with_dlse)
      : case_(c),
        q(random_values<T>(std::size_t(c.nq) * c.heads * c.head_dim, seed), c.heads * c.head_dim,
          gap),
        k(random_values<T>(std::size_t(c.nk) * c.kv_heads * c.head_dim, seed + 1),
          c.kv_heads * c.head_dim, gap),
        v(random_values<T>(std::size_t(c.nk) * c.kv_heads * c.value_dim, seed + 2),
          c.kv_heads * c.value_dim, 2 * gap),
        dout(random_values<T>(std::size_t(c.nq) * c.heads * c.value_dim, seed + 3),
             c.heads * c.value_dim, gap),
        out(c.nq, c.heads * c.value_dim, gap),
        dq(c.nq, c.heads * c.head_dim, gap),
        dk(c.nk, c.kv_heads * c.head_dim, gap),
        dv(c.nk, c.kv_heads * c.value_dim, gap),
        partial(c.nq, c.heads * c.value_dim),
        bias(random_values<float>(std::size_t(c.nk) * c.kv_heads, seed + 4)),
        runs(std::size_t(c.nk) * c.kv_heads),
        open_memory(kernels::attention_open_keys_bytes<T>(c.nk, c.kv_heads, c.head_dim,
                                                          c.value_dim)),
        dlse(random_values<float>(std::size_t(c.nq) * c.heads, seed + 5)),
        lse(std::size_t(c.nq) * c.heads),
        dbias(std::size_t(c.nk) * c.kv_heads),
        stats(kernels::attention_bwd_workspace(c.nq, c.heads)),
        segments_(c.segments),
        with_bias_(with_bias),
        with_dlse_(with_dlse) {
    // Rows that no segment names may hold anything.
    std::vector<bool> queries(std::size_t(c.nq)), keys(std::size_t(c.nk));
    for (const auto& s : c.segments) {
      std::fill_n(queries.begin() + s.query_begin, s.query_length, true);
      std::fill_n(keys.begin() + s.key_begin, s.key_length, true);
    }
    q.poison(queries);
    dout.poison(queries);
    k.poison(keys);
    v.poison(keys);
  }

  AttentionInputs inputs() const {
    AttentionInputs in{q.dense(), k.dense(), v.dense(), dout.dense(), {}, {}};
    if (with_bias_) in.bias = to_double(bias.host());
    if (with_dlse_) in.dlse = to_double(dlse.host());
    return in;
  }

  /// Another bias; leave_out: the keys that it closes are, as far as the passes can.
  void set_bias(const std::vector<float>& values, bool leave_out) {
    xpu::copy_in(bias.get(), values.data(), values.size() * sizeof(float));
    leave_out_ = leave_out;
    open_ = {};
    if (!leave_out) return;
    kernels::attention_closed_runs({bias.get(), runs.get(), case_.nk, case_.kv_heads}, nullptr);
    if (case_.mask.window > 0) return;
    open_ = kernels::attention_open_keys<T>(
        {k.get(), v.get(), bias.get(), k.stride, v.stride, case_.nk, case_.kv_heads, case_.head_dim,
         case_.value_dim, open_memory.get()}, nullptr);
  }

  /// Makes k and v of the closed keys before row `end` NaN.
  void poison_closed(const std::vector<float>& values, int end) {
    const auto poison = [&](Rows<T>& rows) {
      std::vector<T> all = rows.buffer.host();
      const int d = rows.width / case_.kv_heads;
      for (int i = 0; i < end * case_.kv_heads; ++i) {
        if (values[std::size_t(i)] != -HUGE_VALF) continue;
        std::fill_n(all.begin() + i / case_.kv_heads * rows.stride + i % case_.kv_heads * d, d,
                    xpu::from_float<T>(std::nanf("")));
      }
      xpu::copy_in(rows.get(), all.data(), all.size() * sizeof(T));
    };
    poison(k);
    poison(v);
  }

  /// What backward passes take from now on, in place of what attention_bwd_prepare makes.
  void set_stats(const std::vector<float>& values) {
    xpu::copy_in(stats.get(), values.data(), values.size() * sizeof(float));
    stats_given_ = true;
  }

  void forward(bool to_partial = false) {
    const int tile = kernels::attention_tiles<T>(case_.head_dim, case_.value_dim).fwd;
    const auto tiles = kernels::query_tiles(case_.segments, case_.mask, tile);
    const Buffer<kernels::AttentionQueryTile> device_tiles(tiles);
    kernels::AttentionFwdParams<T> p;
    fill(p);
    p.out = to_partial ? nullptr : out.get();
    p.partial = to_partial ? partial.get() : nullptr;
    p.out_stride = to_partial ? partial.stride : out.stride;
    p.lse = lse.get();
    p.schedule.segments = segments_.get();
    p.schedule.query_tiles = device_tiles.get();
    p.schedule.query_tile_count = static_cast<int>(tiles.size());
    p.schedule.query_tile_rows = tile;
    kernels::attention_fwd(p, nullptr);
  }

  void forward_sm90() {
    const int tile = kernels::kAttentionFwdSm90Tile;
    const auto tiles = kernels::query_tiles(case_.segments, case_.mask, tile);
    const Buffer<kernels::AttentionQueryTile> device_tiles(tiles);
    kernels::AttentionFwdParams<T> p;
    fill(p);
    p.out = out.get();
    p.out_stride = out.stride;
    p.lse = lse.get();
    p.schedule.segments = segments_.get();
    p.schedule.query_tiles = device_tiles.get();
    p.schedule.query_tile_count = static_cast<int>(tiles.size());
    p.schedule.query_tile_rows = tile;
    REQUIRE(kernels::attention_fwd_sm90_supported(p));
    kernels::attention_fwd_sm90(p, nullptr);
  }

  void backward() {
    const auto rows = kernels::attention_tiles<T>(case_.head_dim, case_.value_dim);
    backward(rows.bwd_dq, rows.bwd_dkv, [](const auto& p) { kernels::attention_bwd(p, nullptr); });
  }

  void backward_sm90() {
    backward(kernels::kAttentionBwdSm90QueryTile, kernels::kAttentionBwdSm90KeyTile,
             [](const auto& p) {
               REQUIRE(kernels::attention_bwd_sm90_supported(p));
               kernels::attention_bwd_sm90(p, nullptr);
             });
  }

 private:
  template <class Launch>
  void backward(int query_rows, int key_rows, const Launch& launch) {
    const auto queries = kernels::query_tiles(case_.segments, case_.mask, query_rows);
    const auto keys = kernels::key_tiles(case_.segments, case_.mask, key_rows);
    const Buffer<kernels::AttentionQueryTile> query_tiles(queries);
    const Buffer<kernels::AttentionKeyTile> key_tiles(keys.tiles);
    const Buffer<int> key_segments(keys.segments);
    kernels::AttentionBwdParams<T> p;
    fill(p);
    p.out = out.get();
    p.dout = dout.get();
    p.lse = lse.get();
    p.dlse = with_dlse_ ? dlse.get() : nullptr;
    p.dq = dq.get();
    p.dk = dk.get();
    p.dv = dv.get();
    p.dbias = with_bias_ ? dbias.get() : nullptr;
    p.stats = stats.get();
    p.out_stride = out.stride;
    p.dout_stride = dout.stride;
    p.dq_stride = dq.stride;
    p.dk_stride = dk.stride;
    p.dv_stride = dv.stride;
    p.schedule.segments = segments_.get();
    p.schedule.query_tiles = query_tiles.get();
    p.schedule.key_tiles = key_tiles.get();
    p.schedule.key_segments = key_segments.get();
    p.schedule.query_tile_count = static_cast<int>(queries.size());
    p.schedule.query_tile_rows = query_rows;
    p.schedule.key_tile_count = static_cast<int>(keys.tiles.size());
    p.schedule.key_tile_rows = key_rows;
    if (!stats_given_) kernels::attention_bwd_prepare(p, nullptr);
    launch(p);
  }

  template <class P>
  void fill(P& p) const {
    p.q = q.get();
    p.k = k.get();
    p.v = v.get();
    p.bias = with_bias_ ? bias.get() : nullptr;
    p.open = open_;
    if constexpr (requires { p.closed_runs; }) p.closed_runs = leave_out_ ? runs.get() : nullptr;
    p.query_rows = case_.nq;
    p.key_rows = case_.nk;
    p.q_stride = q.stride;
    p.k_stride = k.stride;
    p.v_stride = v.stride;
    p.heads = case_.heads;
    p.kv_heads = case_.kv_heads;
    p.head_dim = case_.head_dim;
    p.value_dim = case_.value_dim;
    p.scale = case_.scale;
    p.mask = case_.mask;
  }

  AttentionCase case_;

 public:
  Rows<T> q, k, v, dout, out, dq, dk, dv;
  Rows<float> partial;
  Buffer<float> bias;
  Buffer<std::uint8_t> runs, open_memory;
  Buffer<float> dlse, lse, dbias, stats;

 private:
  Buffer<kernels::AttentionSegment> segments_;
  kernels::AttentionOpenKeys<T> open_;
  bool with_bias_, with_dlse_, leave_out_ = false, stats_given_ = false;
};

}  // namespace lh::test
