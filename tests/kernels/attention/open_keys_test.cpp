// Copies of open keys, and the walk over them: which keys a tile of queries meets, and in how many tiles.
#include <algorithm>
#include <map>

#include "kernels/attention/bias_cases.h"
#include "kernels/attention/softmax/key_walk.h"

using namespace lh;
using namespace lh::test;
using xpu::bf16;

namespace {

constexpr float kClosed = -HUGE_VALF;

/// bias [rows, heads] -> open rows before each row, [heads, rows + 1].
std::vector<int> count_before(const std::vector<float>& bias, int rows, int heads) {
  std::vector<int> before;
  for (int h = 0; h < heads; ++h) {
    before.push_back(0);
    for (int j = 0; j < rows; ++j) {
      before.push_back(before.back() + (bias[std::size_t(j * heads + h)] != kClosed));
    }
  }
  return before;
}

/// A bias that closes whole blocks of rows and scattered rows; NaN counts as open.
std::vector<float> some_bias(int rows, int heads) {
  std::vector<float> bias = random_values<float>(std::size_t(rows) * heads, 3);
  for (int i = 0; i < rows * heads; ++i) {
    const int j = i / heads, h = i % heads;
    if (h == 1 || (j >= 520 && j < 1060) || !scattered(j, h, h == 0 ? 4 : 1)) {
      bias[std::size_t(i)] = kClosed;
    }
  }
  bias[0] = std::nanf("");
  return bias;
}

template <class T>
void check_copies(int rows, int heads, int head_dim, int value_dim) {
  CAPTURE(rows);
  CAPTURE(heads);
  const std::vector<float> bias = some_bias(rows, heads);
  const std::vector<int> before = count_before(bias, rows, heads);
  const Rows<T> k(random_values<T>(std::size_t(rows) * heads * head_dim, 1), heads * head_dim, 8);
  const Rows<T> v(random_values<T>(std::size_t(rows) * heads * value_dim, 2), heads * value_dim, 0);
  const Buffer<float> device_bias(bias);
  for_each_mode([&] {
    const Buffer<std::uint8_t> memory(
        kernels::attention_open_keys_bytes<T>(rows, heads, head_dim, value_dim));
    const kernels::AttentionOpenKeys<T> got = kernels::attention_open_keys<T>(
        {k.get(), v.get(), device_bias.get(), k.stride, v.stride, rows, heads, head_dim, value_dim,
         memory.get()}, nullptr);
    const auto host = [](const auto* data, std::size_t n) {
      std::vector<std::remove_cvref_t<decltype(*data)>> out(n);
      xpu::copy_out(out.data(), data, n * sizeof(out[0]));
      return out;
    };
    const auto keys = std::size_t(rows) * heads;
    CHECK(host(got.before, keys + heads) == before);
    const auto check = [&](const std::vector<double>& copies, const std::vector<double>& from, int d) {
      std::vector<double> want(copies.size(), 1e30);  // for NaN: what is not written
      for (int h = 0; h < heads; ++h) {
        const int* const counts = &before[std::size_t(h) * (rows + 1)];
        for (int j = 0; j < rows; ++j) {
          if (counts[j + 1] == counts[j]) continue;
          for (int x = 0; x < d; ++x) {
            const double value = from[std::size_t(j * heads + h) * d + x];
            want[std::size_t(counts[j] * heads + h) * d + x] = std::isnan(value) ? 1e30 : value;
          }
        }
      }
      std::vector<double> numbers = copies;
      for (double& x : numbers) x = std::isnan(x) ? 1e30 : x;
      CHECK(numbers == want);
    };
    check(to_double(host(got.k, keys * head_dim)), k.dense(), head_dim);
    check(to_double(host(got.v, keys * value_dim)), v.dense(), value_dim);
    check(to_double(host(got.bias, keys)), to_double(bias), 1);
  });
}

struct Walked {
  std::map<int, int> met;  // row of k: how often a tile has it where all queries may use it
  int tiles = 0;
};

/// What a tile of queries meets.
template <int kTile>
Walked walk_of(const kernels::AttentionFwdParams<float>& p,
               const kernels::AttentionSegment& segment, int kv_head, int first, int last) {
  const auto walk = kernels::softmax::key_walk<kTile, true>(p, segment, kv_head, first, last);
  Walked result;
  result.tiles = walk.count();
  const int* const before = p.open.before + std::int64_t{kv_head} * (p.key_rows + 1);
  for (int i = 0; i < walk.count(); ++i) {
    const kernels::softmax::KeyTile tile = walk.at(i);
    for (int j = 0; j < kTile; ++j) {
      if (!kernels::visible(p.mask, last, tile.key + j, tile.length)) continue;
      int row = tile.row + j;
      if (tile.open) {
        // Unmasked for the first query too, and with the bias.
        CHECK(kernels::visible(p.mask, first, tile.key + j, tile.length));
        CHECK(first - (tile.key + j) >= p.mask.bias_window);
        row = static_cast<int>(std::upper_bound(before, before + p.key_rows + 1, row) - before) - 1;
      }
      ++result.met[row];
    }
  }
  return result;
}

}  // namespace

TEST_CASE("copies of open keys stand one after another") {
  for (const int rows : {1, 31, 512, 513, 1100}) {
    check_copies<bf16>(rows, 3, 16, 32);
    check_copies<float>(rows, 2, 4, 8);
  }
  check_copies<bf16>(700, 1, 128, 64);
  CHECK(kernels::attention_open_keys<float>({}, nullptr).before == nullptr);
}

TEST_CASE("a tile of queries meets every visible key once, but for the remote closed ones") {
  AttentionCase c = packed({40, 300, 1}, 2, 2);
  c.segments.push_back({341, 50, 40, 300, 270});
  c.segments.push_back({391, 20, 40, 200, 500});  // the past only
  c.segments.push_back({411, 20, 40, 100, -10});
  for (const bool causal : {true, false}) {
    for (const int bias_window : {0, 1, 25, 150}) {
      for (const int of : {1, 3, 10, 5000}) {
        CAPTURE(bias_window);
        CAPTURE(of);
        const std::vector<float> bias =
            closing_bias(c, 1, [&](int j, int h) { return !scattered(j, h, of); });
        const std::vector<int> before = count_before(bias, c.nk, c.kv_heads);
        kernels::AttentionFwdParams<float> p;
        p.mask.causal = causal;
        p.mask.bias_window = bias_window;
        p.key_rows = c.nk;
        p.open.before = before.data();
        for (const auto& s : c.segments) {
          for (int begin = 0; begin < s.query_length; begin += 128) {
            const int first = begin + s.query_offset;
            const int last = std::min(begin + 128, s.query_length) - 1 + s.query_offset;
            for (int h = 0; h < c.kv_heads; ++h) {
              std::map<int, int> want;
              for (int j = 0; j < s.key_length; ++j) {
                const bool closed = bias[std::size_t((s.key_begin + j) * c.kv_heads + h)] == kClosed;
                if (kernels::visible(p.mask, last, j, s.key_length) &&
                    !(closed && first - j >= bias_window)) {
                  want[s.key_begin + j] = 1;
                }
              }
              CHECK(walk_of<64>(p, s, h, first, last).met == want);
            }
          }
        }
      }
    }
  }
}

TEST_CASE("the tiles of a long document follow the number of open keys") {
  constexpr int kKeys = 8192, kQueries = 128, kTile = 128;
  const AttentionCase c = packed({kKeys}, 1, 1);
  for (const int of : {1, 10, 20}) {
    const std::vector<float> bias =
        closing_bias(c, 0, [&](int j, int h) { return !scattered(j, h, of); });
    const std::vector<int> before = count_before(bias, kKeys, 1);
    kernels::AttentionFwdParams<float> p;
    p.mask.bias_window = 128;
    p.key_rows = kKeys;
    p.open.before = before.data();
    int tiles = 0, every = 0;
    for (int first = 0; first < kKeys; first += kQueries) {
      const int last = first + kQueries - 1;
      tiles += kernels::softmax::key_walk<kTile, true>(p, c.segments[0], 0, first, last).count();
      every += kernels::key_tile_range(p.mask, kKeys, first, last, kTile).count();
    }
    // Two near tiles, and the open share of the others with one that is cut.
    CAPTURE(of);
    MESSAGE("one key in " << of << " open: " << tiles << " of " << every << " tiles");
    CHECK(tiles <= every / of + 3 * kKeys / kQueries);
    CHECK(tiles >= every / of);
  }
}

TEST_CASE("attention refuses open keys that it cannot read") {
  kernels::AttentionFwdParams<bf16> p;
  p.heads = p.kv_heads = 1;
  p.head_dim = p.value_dim = 64;
  const int before[2] = {};
  const bf16 key{};
  const float bias = 0;
  p.open = {before, &key, &key, &bias};
  CHECK_THROWS_AS(kernels::attention_fwd(p, nullptr), xpu::Error);  // of which bias?
  p.bias = &bias;
  CHECK_THROWS_AS(kernels::attention_fwd(p, nullptr), xpu::Error);  // of how many keys?
  p.key_rows = 1;
  CHECK_NOTHROW(kernels::attention_fwd(p, nullptr));
  p.mask.window = 5;  // which would need positions
  CHECK_THROWS_AS(kernels::attention_fwd(p, nullptr), xpu::Error);
}
