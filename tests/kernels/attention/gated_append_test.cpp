// Append to self-pruned caches against a list of tokens that is pruned one token at a time: what a head
// holds afterwards, where, and nothing else written. Any cut of a text into runs gives the same cache.
#include "kernels/attention/gated_append.h"

#include <cstring>
#include <numeric>

#include "kernels/support/harness.h"

using namespace lh;
using namespace lh::test;
using xpu::bf16;

namespace {

struct AppendCase {
  int heads = 2, head_dim = 32, value_dim = 16, window = 5, page_size = 16;
  std::vector<int> runs;  // tokens of each launch
  double density = 0.3;   // 0, 1: of heads that keep nothing, everything
  int gap = 0;            // elements between tokens of new_k and new_v
};

/// A head's rows as tokens: the ring, then what was kept.
struct PrunedHead {
  std::vector<int> ring, kept;
  int seen = 0;

  void add(int window, const std::vector<std::uint8_t>& keep) {
    if (seen < window) {
      ring.push_back(seen);
    } else {
      int& oldest = ring[static_cast<std::size_t>(seen % window)];
      if (keep[static_cast<std::size_t>(oldest)] != 0) kept.push_back(oldest);
      oldest = seen;
    }
    ++seen;
  }
};

template <class T>
std::uint32_t bits_of(T x) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &x, sizeof x);
  return bits;
}

template <class T>
class AppendRun {
 public:
  explicit AppendRun(const AppendCase& c)
      : c_(c),
        tokens_(std::accumulate(c.runs.begin(), c.runs.end(), 0)),
        pages_per_head_((std::max(tokens_, c.window) + c.page_size - 1) / c.page_size + 1),
        new_k_(random_values<T>(std::size_t(tokens_) * k_stride(), 1)),
        new_v_(random_values<T>(std::size_t(tokens_) * v_stride(), 2)),
        k_(cache_rows() * c.head_dim),
        v_(cache_rows() * c.value_dim),
        bits_(std::size_t(c.heads) * c.window),
        seen_(std::vector<int>(c.heads, 0)),
        lengths_(std::vector<int>(c.heads, 0)) {
    std::mt19937 random(3);
    for (int h = 0; h < c.heads; ++h) {
      // The first two heads are the extremes where the case asks for some of each.
      const double density = c.density < 1 && h < 2 && c.heads > 2 ? h : c.density;
      keep_.emplace_back();
      for (int t = 0; t < tokens_; ++t) {
        keep_.back().push_back(std::uniform_real_distribution<>(0, 1)(random) < density ? 1 : 0);
      }
    }
    table_.resize(std::size_t(c.heads) * pages_per_head_);
    std::iota(table_.begin(), table_.end(), 0);
    std::shuffle(table_.begin(), table_.end(), random);
  }

  void check() {
    std::vector<PrunedHead> heads(static_cast<std::size_t>(c_.heads));
    const Buffer<int> pages(table_);
    int first = 0;
    for (const int count : c_.runs) {
      // Exactly this run's rows: nothing of others may be read.
      const Buffer<T> new_k(part(new_k_, first, count, k_stride(), c_.heads * c_.head_dim));
      const Buffer<T> new_v(part(new_v_, first, count, v_stride(), c_.heads * c_.value_dim));
      std::vector<float> gates;
      for (int t = first; t < first + count; ++t) {
        for (const auto& keep : keep_) gates.push_back(keep[t] != 0 ? 0.0f : -INFINITY);
      }
      const Buffer<float> gate_buffer(gates);
      kernels::GatedAppendParams<T> p;
      p.new_k = new_k.get();
      p.new_v = new_v.get();
      p.gates = gate_buffer.get();
      p.k = k_.get();
      p.v = v_.get();
      p.pages = pages.get();
      p.bits = bits_.get();
      p.seen = seen_.get();
      p.lengths = lengths_.get();
      p.k_stride = k_stride();
      p.v_stride = v_stride();
      p.tokens = count;
      p.heads = c_.heads;
      p.head_dim = c_.head_dim;
      p.value_dim = c_.value_dim;
      p.window = c_.window;
      p.page_size = c_.page_size;
      p.pages_per_head = pages_per_head_;
      kernels::gated_append(p, nullptr);
      for (int t = 0; t < count; ++t) {
        for (int h = 0; h < c_.heads; ++h) heads[h].add(c_.window, keep_[h]);
      }
      first += count;
      check_against(heads);
    }
  }

 private:
  int k_stride() const { return c_.heads * c_.head_dim + c_.gap; }
  int v_stride() const { return c_.heads * c_.value_dim + 2 * c_.gap; }
  std::size_t cache_rows() const {
    return std::size_t(c_.heads) * pages_per_head_ * c_.page_size;
  }
  static std::vector<T> part(const std::vector<T>& all, int first, int count, int stride,
                             int width) {
    const auto begin = all.begin() + std::int64_t{first} * stride;
    return {begin, begin + std::int64_t{count - 1} * stride + width};
  }

  void check_against(const std::vector<PrunedHead>& heads) const {
    // Every byte of the caches: NaN where no token is.
    std::vector<T> k(cache_rows() * c_.head_dim), v(cache_rows() * c_.value_dim);
    std::memset(k.data(), 0xff, k.size() * sizeof(T));
    std::memset(v.data(), 0xff, v.size() * sizeof(T));
    const auto seen = seen_.host(), lengths = lengths_.host();
    const auto bits = bits_.host();
    for (int h = 0; h < c_.heads; ++h) {
      const PrunedHead& head = heads[h];
      CAPTURE(h);
      REQUIRE(seen[h] == head.seen);
      REQUIRE(lengths[h] == int(head.ring.size() + head.kept.size()));
      const auto place = [&](int row, int token) {
        const int page = table_[h * pages_per_head_ + row / c_.page_size];
        const std::size_t at = std::size_t(page) * c_.page_size + row % c_.page_size;
        std::copy_n(new_k_.begin() + std::int64_t{token} * k_stride() + h * c_.head_dim,
                    c_.head_dim, k.begin() + at * c_.head_dim);
        std::copy_n(new_v_.begin() + std::int64_t{token} * v_stride() + h * c_.value_dim,
                    c_.value_dim, v.begin() + at * c_.value_dim);
      };
      for (std::size_t i = 0; i < head.ring.size(); ++i) {
        place(int(i), head.ring[i]);
        CHECK(bits[h * c_.window + i] == keep_[h][head.ring[i]]);
      }
      for (std::size_t i = 0; i < head.kept.size(); ++i) place(c_.window + int(i), head.kept[i]);
    }
    CHECK(same_bits(k_.host(), k));
    CHECK(same_bits(v_.host(), v));
  }
  static bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
    return std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
  }

  AppendCase c_;
  int tokens_, pages_per_head_;
  std::vector<T> new_k_, new_v_;
  std::vector<std::vector<std::uint8_t>> keep_;  // per head and token
  std::vector<int> table_;
  Buffer<T> k_, v_;
  Buffer<std::uint8_t> bits_;
  Buffer<int> seen_, lengths_;
};

std::vector<AppendCase> append_cases() {
  std::vector<AppendCase> cases;
  const auto add = [&](std::vector<int> runs) -> AppendCase& {
    cases.push_back({});
    cases.back().runs = std::move(runs);
    return cases.back();
  };
  const std::vector<int> single(40, 1);
  for (const int window : {1, 5, 16, 17, 64}) {
    AppendCase& c = add(single);
    c.window = window;
    c.heads = 4;
  }
  for (const double density : {0.0, 1.0}) add({30, 1, 1, 1}).density = density;
  add({3, 2, 1, 7, 40, 4, 5, 6, 1}).gap = 8;
  {
    AppendCase& c = add({1300, 1, 90});  // several rounds of the block
    c.density = 0.5;
    c.window = 70;
    c.heads = 1;
    c.page_size = 64;
  }
  {
    AppendCase& c = add({600, 700, 30});  // a ring of which several rounds leave
    c.density = 0.7;
    c.window = 600;
    c.heads = 1;
  }
  {
    AppendCase& c = add({20, 1, 1});
    c.head_dim = 128;
    c.value_dim = 256;
    c.heads = 3;
  }
  return cases;
}

template <class T>
void check_cases() {
  for (const AppendCase& c : append_cases()) {
    CAPTURE(c.window);
    CAPTURE(c.runs);
    for_each_mode([&] { AppendRun<T>(c).check(); });
  }
}

}  // namespace

TEST_CASE("gated append prunes as one token at a time does, bf16") { check_cases<bf16>(); }

TEST_CASE("gated append prunes as one token at a time does, fp32") { check_cases<float>(); }

TEST_CASE("gated append refuses what it cannot copy or address") {
  const Buffer<float> data(std::vector<float>(256, 0.0f));
  const Buffer<int> ints(std::vector<int>(16, 0));
  const Buffer<std::uint8_t> bytes(std::vector<std::uint8_t>(64, 0));
  kernels::GatedAppendParams<float> good;
  good.new_k = good.new_v = data.get();
  good.gates = data.get();
  good.k = good.v = data.get();
  good.pages = ints.get();
  good.seen = good.lengths = ints.get();
  good.bits = bytes.get();
  good.k_stride = good.v_stride = 8;
  good.heads = 1;
  good.head_dim = good.value_dim = 8;
  good.window = good.page_size = 16;
  good.pages_per_head = 1;
  kernels::gated_append(good, nullptr);  // no tokens
  const auto refused = [&](auto change, const char* what) {
    auto p = good;
    change(p);
    CHECK_THROWS_WITH_AS(kernels::gated_append(p, nullptr), doctest::Contains(what), xpu::Error);
  };
  refused([](auto& p) { p.page_size = 24; }, "power of two");
  refused([](auto& p) { p.page_size = 8; }, "of at least 16");
  refused([](auto& p) { p.window = 17; }, "the page table covers, got 17 and 1 pages of 16");
  refused([](auto& p) { p.window = 0; }, "a window of at least 1");
  refused([](auto& p) { p.head_dim = 6; }, "16-byte aligned rows");
  refused([&](auto& p) { p.new_v = data.get() + 1; }, "new_v has 16-byte aligned rows");
}
