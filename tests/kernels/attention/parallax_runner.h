// Runs the launchers of Parallax on an AttentionCase: buffers of exact size, strided rows, schedule.
#pragma once
#include "kernels/attention/parallax.h"
#include "kernels/attention/parallax_reference.h"
#include "kernels/attention/parallax_sm90.h"
#include "kernels/attention/runner.h"

namespace lh::test {

/// Rows that no segment names hold NaN.
template <class T>
class ParallaxRun {
 public:
  ParallaxRun(const AttentionCase& c, unsigned seed, int gap, float probe_size = 0.5f)
      : case_(c),
        q(queries(seed, 1.0f), c.heads * c.head_dim, gap),
        r(queries(seed + 1, probe_size), c.heads * c.head_dim, 2 * gap),
        k(random_values<T>(std::size_t(c.nk) * c.kv_heads * c.head_dim, seed + 2),
          c.kv_heads * c.head_dim, gap),
        v(random_values<T>(std::size_t(c.nk) * c.kv_heads * c.value_dim, seed + 3),
          c.kv_heads * c.value_dim, 2 * gap),
        dout(random_values<T>(std::size_t(c.nq) * c.heads * c.value_dim, seed + 4),
             c.heads * c.value_dim, gap),
        out(c.nq, c.heads * c.value_dim, gap),
        intercept(c.nq, c.heads * c.value_dim, 2 * gap),
        dq(c.nq, c.heads * c.head_dim, gap),
        dr(c.nq, c.heads * c.head_dim, 2 * gap),
        dk(c.nk, c.kv_heads * c.head_dim, gap),
        dv(c.nk, c.kv_heads * c.value_dim, gap),
        lse(std::size_t(c.nq) * c.heads),
        probe_mean(std::size_t(c.nq) * c.heads),
        stats_(kernels::parallax_bwd_workspace(c.nq, c.heads)),
        segments_(c.segments) {
    std::vector<bool> in_queries(std::size_t(c.nq)), in_keys(std::size_t(c.nk));
    for (const auto& s : c.segments) {
      std::fill_n(in_queries.begin() + s.query_begin, s.query_length, true);
      std::fill_n(in_keys.begin() + s.key_begin, s.key_length, true);
    }
    q.poison(in_queries);
    r.poison(in_queries);
    dout.poison(in_queries);
    k.poison(in_keys);
    v.poison(in_keys);
  }

  ParallaxInputs inputs() const {
    return {q.dense(), r.dense(), k.dense(), v.dense(), dout.dense()};
  }

  void forward() {
    forward(kernels::parallax_tiles<T>(case_.head_dim, case_.value_dim).fwd,
            [](const auto& p) { kernels::parallax_fwd(p, nullptr); });
  }

  void forward_sm90() {
    forward(kernels::kParallaxFwdSm90Tile, [](const auto& p) {
      REQUIRE(kernels::parallax_fwd_sm90_supported(p));
      kernels::parallax_fwd_sm90(p, nullptr);
    });
  }

  void backward() {
    const auto rows = kernels::parallax_tiles<T>(case_.head_dim, case_.value_dim);
    backward(rows.bwd_dq, rows.bwd_dkv, [](const auto& p) { kernels::parallax_bwd(p, nullptr); });
  }

  void backward_sm90() {
    backward(kernels::kParallaxBwdSm90QueryTile, kernels::kParallaxBwdSm90KeyTile,
             [](const auto& p) {
               REQUIRE(kernels::parallax_bwd_sm90_supported(p));
               kernels::parallax_bwd_sm90(p, nullptr);
             });
  }

  ParallaxResults results() const {
    return {out.dense(), intercept.dense(), to_double(lse.host()), to_double(probe_mean.host()),
            dq.dense(),  dr.dense(),        dk.dense(),            dv.dense()};
  }

 private:
  std::vector<T> queries(unsigned seed, float size) const {
    return random_values<T>(std::size_t(case_.nq) * case_.heads * case_.head_dim, seed, size);
  }

  template <class Launch>
  void forward(int tile, const Launch& launch) {
    const auto tiles = kernels::query_tiles(case_.segments, case_.mask, tile);
    const Buffer<kernels::AttentionQueryTile> device_tiles(tiles);
    kernels::ParallaxFwdParams<T> p;
    fill(p);
    p.out = out.get();
    p.intercept = intercept.get();
    p.lse = lse.get();
    p.probe_mean = probe_mean.get();
    p.schedule.query_tiles = device_tiles.get();
    p.schedule.query_tile_count = static_cast<int>(tiles.size());
    p.schedule.query_tile_rows = tile;
    launch(p);
  }

  template <class Launch>
  void backward(int query_rows, int key_rows, const Launch& launch) {
    const auto queries = kernels::query_tiles(case_.segments, case_.mask, query_rows);
    const auto keys = kernels::key_tiles(case_.segments, case_.mask, key_rows);
    const Buffer<kernels::AttentionQueryTile> query_tiles(queries);
    const Buffer<kernels::AttentionKeyTile> key_tiles(keys.tiles);
    const Buffer<int> key_segments(keys.segments);
    kernels::ParallaxBwdParams<T> p;
    fill(p);
    p.out = out.get();
    p.intercept = intercept.get();
    p.lse = lse.get();
    p.probe_mean = probe_mean.get();
    p.dout = dout.get();
    p.dq = dq.get();
    p.dr = dr.get();
    p.dk = dk.get();
    p.dv = dv.get();
    p.stats = stats_.get();
    p.dout_stride = dout.stride;
    p.dq_stride = dq.stride;
    p.dr_stride = dr.stride;
    p.dk_stride = dk.stride;
    p.dv_stride = dv.stride;
    p.schedule.query_tiles = query_tiles.get();
    p.schedule.key_tiles = key_tiles.get();
    p.schedule.key_segments = key_segments.get();
    p.schedule.query_tile_count = static_cast<int>(queries.size());
    p.schedule.query_tile_rows = query_rows;
    p.schedule.key_tile_count = static_cast<int>(keys.tiles.size());
    p.schedule.key_tile_rows = key_rows;
    kernels::parallax_bwd_prepare(p, nullptr);
    launch(p);
  }

  template <class P>
  void fill(P& p) const {
    p.q = q.get();
    p.r = r.get();
    p.k = k.get();
    p.v = v.get();
    p.q_stride = q.stride;
    p.r_stride = r.stride;
    p.k_stride = k.stride;
    p.v_stride = v.stride;
    p.out_stride = out.stride;
    p.intercept_stride = intercept.stride;
    p.query_rows = case_.nq;
    p.key_rows = case_.nk;
    p.heads = case_.heads;
    p.kv_heads = case_.kv_heads;
    p.head_dim = case_.head_dim;
    p.value_dim = case_.value_dim;
    p.scale = case_.scale;
    p.mask = case_.mask;
    p.schedule.segments = segments_.get();
  }

  AttentionCase case_;

 public:
  Rows<T> q, r, k, v, dout, out, intercept, dq, dr, dk, dv;
  Buffer<float> lse, probe_mean;

 private:
  Buffer<float> stats_;
  Buffer<kernels::AttentionSegment> segments_;
};

}  // namespace lh::test
