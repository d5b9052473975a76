// Decode attention against the dense formula in fp64, over pages, splits and masks; the result is the
// same to the last bit in every order of blocks and in every launch.
#include "kernels/attention/decode_cases.h"
#include "kernels/attention/merge.h"

using namespace lh;
using namespace lh::test;
using xpu::bf16;

namespace {

/// What the composite does not have: the special unit's exp2, other orders of sums.
constexpr double kAbsolute = 4e-6;

std::vector<std::uint32_t> bits_of(const std::vector<double>& x) {
  std::vector<std::uint32_t> out;
  for (const double value : x) {
    const auto narrow = static_cast<float>(value);
    std::uint32_t bits;
    std::memcpy(&bits, &narrow, sizeof bits);
    out.push_back(bits);
  }
  return out;
}

template <class T>
void check_case(const DecodeCase& c) {
  CAPTURE(c.name);
  AttentionInputs in;
  AttentionResults want, composite;
  std::vector<std::uint32_t> first_out, first_lse;
  for_each_mode([&] {
    DecodeRun<T> run(c, 1);
    if (want.out.empty()) {
      in = run.inputs();
      want = reference_attention<Exact>(run.dense, in, false);
      composite = reference_attention<Rounded<T>>(run.dense, in, false);
    }
    for (int launch = 0; launch < 2; ++launch) {  // the second finds the counters of the first
      run.run();
      const auto out = run.out.dense();
      const auto lse = to_double(run.lse.host());
      check_as_precise(out, want.out, composite.out, kAbsolute, "out of " + c.name);
      check_as_precise(lse, want.lse, composite.lse, kAbsolute, "lse of " + c.name);
      for (const int count : run.counters.host()) REQUIRE(count == 0);
      if (first_out.empty()) first_out = bits_of(out), first_lse = bits_of(lse);
      CHECK(bits_of(out) == first_out);
      CHECK(bits_of(lse) == first_lse);
    }
  });
}

}  // namespace

TEST_CASE("attention decode equals the dense formula, bf16") {
  for (const DecodeCase& c : decode_cases()) check_case<bf16>(c);
}

TEST_CASE("attention decode equals the dense formula, fp32") {
  for (const DecodeCase& c : decode_cases()) check_case<float>(c);
}

TEST_CASE("attention decode in fp32 takes head sizes in steps of 4") {
  DecodeCase c;
  c.name = "head 20, values 12";
  c.sequences = {{1, 70}, {2, 30}};
  c.head_dim = 20;
  c.value_dim = 12;
  c.splits = 3;
  check_case<float>(c);
}

TEST_CASE("attention decode writes a partial result in fp32, with one split and with several") {
  for (const int splits : {1, 3}) {
    DecodeCase c;
    c.sequences = {{1, 90}, {2, 70}};
    c.splits = splits;
    c.gap = 8;
    DecodeRun<bf16> run(c, 3);
    const auto in = run.inputs();
    const auto want = reference_attention<Exact>(run.dense, in, false);
    run.run(true);
    const auto partial = run.partial.dense();
    // Each weight is rounded by at most 2^-9 of itself, so the mean of v moves by 2^-9 max |v|.
    double largest = 0;
    for (const double x : in.v) largest = std::max(largest, std::fabs(x));
    for (std::size_t i = 0; i < partial.size(); ++i) {
      REQUIRE(std::isnan(partial[i]) == std::isnan(want.out[i]));
      if (!std::isnan(partial[i])) REQUIRE(std::fabs(partial[i] - want.out[i]) <= largest / 512);
    }
    for (const double x : run.out.dense()) REQUIRE(std::isnan(x));
  }
}

TEST_CASE("attention decode takes lengths in place of segments, and other lengths in the next launch") {
  DecodeCase c;
  c.sequences = {{1, 70}, {1, 0}, {1, 1}, {1, 16}, {1, 333}};
  c.splits = 3;
  c.page_size = 16;
  for_each_mode([&] {
    DecodeRun<bf16> run(c, 7);
    auto p = run.params(false);
    p.workspace = run.workspace.get();
    p.counters = run.counters.get();
    const auto launched = [&](const std::vector<int>& keys) {
      for (std::size_t s = 0; s < keys.size(); ++s) {
        auto segment = run.dense.segments[s];
        segment.key_length = keys[s];
        segment.query_offset = keys[s] - 1;
        xpu::copy_in(run.segments.get() + s, &segment, sizeof segment);
      }
      kernels::attention_decode(p, nullptr);
      const auto want = run.out.dense();
      const auto want_lse = run.lse.host();
      // Sequence s is row s; in the segments it is row 2 s + 1.
      const Buffer<int> lengths(keys);
      const Buffer<float> lse(keys.size() * c.heads);
      auto by_length = p;
      by_length.segments = nullptr;
      by_length.lengths = lengths.get();
      by_length.q += p.q_stride;
      by_length.q_stride *= 2;
      by_length.out += p.out_stride;
      by_length.out_stride *= 2;
      by_length.lse = lse.get();
      kernels::attention_decode(by_length, nullptr);
      CHECK(bits_of(run.out.dense()) == bits_of(want));
      for (std::size_t s = 0; s < keys.size(); ++s) {
        for (int head = 0; head < c.heads; ++head) {
          CHECK(lse.host()[s * c.heads + head] == want_lse[(2 * s + 1) * c.heads + head]);
        }
      }
    };
    launched({70, 0, 1, 16, 333});
    launched({41, 0, 1, 2, 290});
    p.segments = nullptr;
    CHECK_THROWS_WITH_AS(kernels::attention_decode(p, nullptr),
                         doctest::Contains("segments, or lengths"), xpu::Error);
  });
}

TEST_CASE("attention decode of two shares of the keys merges to the whole") {
  DecodeCase c;
  c.sequences = {{2, 200}};
  c.splits = 3;
  DecodeRun<bf16> run(c, 5);
  const auto in = run.inputs();
  const int width = c.heads * c.value_dim, rows = run.dense.nq, share = 120;
  std::vector<float> parts, lses;
  const auto whole = run.dense.segments[0];
  for (int part = 0; part < 2; ++part) {
    auto s = whole;
    s.key_begin = part * share;
    s.key_length = part == 0 ? share : whole.key_length - share;
    s.query_offset -= s.key_begin;
    xpu::copy_in(run.segments.get(), &s, sizeof s);
    run.run(true);
    const auto out = run.partial.buffer.host(), lse = run.lse.host();
    parts.insert(parts.end(), out.begin() + width, out.end());  // without the row of no sequence
    lses.insert(lses.end(), lse.begin() + c.heads, lse.end());
  }
  const Buffer<float> device_parts(parts), device_lses(lses), lse(lses.size() / 2);
  const Buffer<bf16> out(parts.size() / 2);
  kernels::AttentionMergeParams<float, bf16> p;
  p.parts = device_parts.get();
  p.lses = device_lses.get();
  p.out = out.get();
  p.lse = lse.get();
  p.part_stride = std::int64_t{rows - 1} * width;
  p.part_row_stride = p.out_stride = width;
  p.count = 2;
  p.rows = rows - 1;
  p.heads = c.heads;
  p.value_dim = c.value_dim;
  kernels::attention_merge(p, nullptr);
  const auto drop = [](std::vector<double> x, int n) {
    x.erase(x.begin(), x.begin() + n);
    return x;
  };
  const auto want = reference_attention<Exact>(run.dense, in, false);
  const auto composite = reference_attention<Rounded<bf16>>(run.dense, in, false);
  check_as_precise(to_double(out.host()), drop(want.out, width), drop(composite.out, width),
                   kAbsolute, "merged out");
  check_as_precise(to_double(lse.host()), drop(want.lse, c.heads), drop(composite.lse, c.heads),
                   kAbsolute, "merged lse");
}

TEST_CASE("attention decode reads lengths on the device: one launch serves a growing cache") {
  DecodeCase c;
  c.sequences = {{1, 200}, {1, 77}};
  c.splits = 3;
  c.split_keys = 64;
  c.page_size = 16;
  DecodeRun<bf16> run(c, 1);
  auto dense = run.dense;
  for (const int keys : {1, 60, 130, 200}) {
    dense.segments[0].key_length = keys;
    dense.segments[0].query_offset = keys - 1;
    xpu::copy_in(run.segments.get(), dense.segments.data(),
                 dense.segments.size() * sizeof(dense.segments[0]));
    run.run();
    const auto in = run.inputs();
    check_as_precise(run.out.dense(), reference_attention<Exact>(dense, in, false).out,
                     reference_attention<Rounded<bf16>>(dense, in, false).out, kAbsolute, "out");
  }
}

TEST_CASE("attention decode lets a NaN reach the output, from any split") {
  for (const int bad : {3, 250}) {
    DecodeCase c;
    c.sequences = {{1, 260}};
    c.splits = 4;
    DecodeRun<bf16> run(c, 1);
    const bf16 nan{0x7fc0};
    xpu::copy_in(run.k.get() + bad * run.k.stride, &nan, sizeof nan);
    run.run();
    const auto out = run.out.dense();
    for (std::size_t i = out.size() / 2; i < out.size(); ++i) REQUIRE(std::isnan(out[i]));
  }
}

#ifndef __CUDACC__
TEST_CASE("attention decode reads shared memory without bank conflicts") {
  xpu::emu::reset_counters();
  for (const int d : {64, 128, 256}) {
    DecodeCase c;
    c.sequences = {{1, 150}};
    c.head_dim = c.value_dim = d;
    DecodeRun<bf16> run(c, 1);
    run.run();
  }
  CHECK(xpu::emu::counters().matrix_loads > 500);
  CHECK(xpu::emu::counters().bank_conflicts == 0);
}
#endif

TEST_CASE("attention decode refuses what it cannot do and names it") {
  kernels::AttentionDecodeParams<bf16> p;
  p.heads = 4;
  p.kv_heads = 2;
  p.head_dim = p.value_dim = 64;
  CHECK_NOTHROW(kernels::attention_decode(p, nullptr));  // no sequences: nothing to do
  const auto refused = [](auto params, const char* word) {
    try {
      kernels::attention_decode(params, nullptr);
    } catch (const xpu::Error& error) {
      return std::string(error.what()).find(word) != std::string::npos;
    }
    return false;
  };
  auto bad = p;
  bad.head_dim = 72;
  CHECK(refused(bad, "head dims"));
  bad = p;
  bad.kv_heads = 3;
  CHECK(refused(bad, "kv_heads"));
  bad = p;
  bad.k_stride = 4;
  CHECK(refused(bad, "k has 16-byte aligned rows"));
  bad = p;
  int page = 0;
  bad.pages = &page;
  for (const int size : {0, 8, 48}) {
    bad.page_size = size;
    CHECK(refused(bad, "page size"));
  }
  bad = p;
  bad.splits = 2;
  CHECK(refused(bad, "workspace and counters"));
}
