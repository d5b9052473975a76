// Decode of Parallax against its definition in fp64, over pages, splits and masks; the result is the same
// to the last bit in every order of blocks and in every launch.
#include <cstring>

#include "kernels/attention/decode_cases.h"
#include "kernels/attention/parallax.h"
#include "kernels/attention/parallax_reference.h"

using namespace lh;
using namespace lh::test;
using xpu::bf16;

namespace {

/// What the composite does not have: the special unit's exp2, other orders of sums.
constexpr double kAbsolute = 4e-6;

template <class T>
class ParallaxDecodeRun {
 public:
  ParallaxDecodeRun(const DecodeCase& c, unsigned seed)
      : softmax_(c, seed),
        r(random_values<T>(std::size_t(softmax_.dense.nq) * c.heads * c.head_dim, seed + 7, 0.5f),
          c.heads * c.head_dim, 2 * c.gap),
        out(softmax_.dense.nq, c.heads * c.value_dim, c.gap),
        intercept(softmax_.dense.nq, c.heads * c.value_dim, 2 * c.gap),
        lse(std::size_t(softmax_.dense.nq) * c.heads),
        probe_mean(std::size_t(softmax_.dense.nq) * c.heads),
        workspace(kernels::attention_decode_workspace(params())),
        counters(std::vector<int>(kernels::attention_decode_counters(params()), 0)) {}

  const AttentionCase& dense() const { return softmax_.dense; }
  ParallaxInputs inputs() const {
    const AttentionInputs in = softmax_.inputs();
    return {in.q, r.dense(), in.k, in.v,
            std::vector<double>(std::size_t(dense().nq) * dense().heads * dense().value_dim)};
  }
  Buffer<kernels::AttentionSegment>& segments() { return softmax_.segments; }

  void run() {
    auto p = params();
    p.workspace = workspace.get();
    p.counters = counters.get();
    kernels::parallax_decode(p, nullptr);
  }

 private:
  kernels::ParallaxDecodeParams<T> params() const {
    kernels::ParallaxDecodeParams<T> p;
    static_cast<kernels::AttentionDecodeParams<T>&>(p) = softmax_.params(false);
    p.r = r.get();
    p.out = out.get();
    p.intercept = intercept.get();
    p.lse = lse.get();
    p.probe_mean = probe_mean.get();
    p.r_stride = r.stride;
    p.out_stride = out.stride;
    p.intercept_stride = intercept.stride;
    return p;
  }

  DecodeRun<T> softmax_;

 public:
  Rows<T> r, out, intercept;
  Buffer<float> lse, probe_mean, workspace;
  Buffer<int> counters;
};

std::vector<DecodeCase> parallax_decode_cases() {
  std::vector<DecodeCase> cases;
  for (DecodeCase& c : decode_cases()) {
    if (std::max(c.head_dim, c.value_dim) > kernels::kParallaxMaxDim) continue;
    if (c.name == "everything") c.bias = false, c.mask.bias_window = 0;
    if (!c.bias) cases.push_back(std::move(c));
  }
  return cases;
}

template <class T>
void check_case(const DecodeCase& c) {
  CAPTURE(c.name);
  ParallaxResults want, composite;
  std::vector<std::vector<double>> first;
  for_each_mode([&] {
    ParallaxDecodeRun<T> run(c, 1);
    if (want.out.empty()) {
      const auto in = run.inputs();
      want = parallax_definition(run.dense(), in);
      composite = parallax_composite<Rounded<T>>(run.dense(), in);
    }
    for (int launch = 0; launch < 2; ++launch) {  // the second finds the counters of the first
      run.run();
      const std::vector<std::vector<double>> got = {run.out.dense(), run.intercept.dense(),
                                                    to_double(run.lse.host()),
                                                    to_double(run.probe_mean.host())};
      check_as_precise(got[0], want.out, composite.out, kAbsolute, "out of " + c.name);
      check_as_precise(got[1], want.intercept, composite.intercept, kAbsolute,
                       "intercept of " + c.name);
      check_as_precise(got[2], want.lse, composite.lse, kAbsolute, "lse of " + c.name);
      check_as_precise(got[3], want.probe_mean, composite.probe_mean, kAbsolute,
                       "probe_mean of " + c.name);
      for (const int count : run.counters.host()) REQUIRE(count == 0);
      if (first.empty()) first = got;
      for (std::size_t i = 0; i < got.size(); ++i) {
        CHECK(std::memcmp(got[i].data(), first[i].data(), got[i].size() * sizeof(double)) == 0);
      }
    }
  }, true);
}

}  // namespace

TEST_CASE("parallax decode equals the definition, bf16") {
  for (const DecodeCase& c : parallax_decode_cases()) check_case<bf16>(c);
}

TEST_CASE("parallax decode equals the definition, fp32") {
  for (const DecodeCase& c : parallax_decode_cases()) check_case<float>(c);
}

TEST_CASE("parallax decode in fp32 takes head sizes in steps of 4") {
  DecodeCase c;
  c.name = "head 20, values 12";
  c.sequences = {{1, 70}, {2, 30}};
  c.head_dim = 20;
  c.value_dim = 12;
  c.splits = 3;
  check_case<float>(c);
}

TEST_CASE("parallax decode reads lengths on the device: one launch serves a growing cache") {
  DecodeCase c;
  c.sequences = {{1, 200}, {1, 77}};
  c.splits = 3;
  c.split_keys = 64;
  c.page_size = 16;
  ParallaxDecodeRun<bf16> run(c, 1);
  auto dense = run.dense();
  for (const int keys : {1, 60, 130, 200}) {
    dense.segments[0].key_length = keys;
    dense.segments[0].query_offset = keys - 1;
    xpu::copy_in(run.segments().get(), dense.segments.data(),
                 dense.segments.size() * sizeof(dense.segments[0]));
    run.run();
    const auto in = run.inputs();
    check_as_precise(run.out.dense(), parallax_definition(dense, in).out,
                     parallax_composite<Rounded<bf16>>(dense, in).out, kAbsolute, "out");
  }
}

#ifndef __CUDACC__
TEST_CASE("parallax decode reads shared memory without bank conflicts") {
  xpu::emu::reset_counters();
  for (const int d : {64, 128}) {
    DecodeCase c;
    c.sequences = {{1, 150}};
    c.head_dim = c.value_dim = d;
    ParallaxDecodeRun<bf16> run(c, 1);
    run.run();
  }
  CHECK(xpu::emu::counters().matrix_loads > 300);
  CHECK(xpu::emu::counters().bank_conflicts == 0);
}
#endif

TEST_CASE("parallax decode refuses what it cannot do and names it") {
  kernels::ParallaxDecodeParams<bf16> p;
  p.heads = 4;
  p.kv_heads = 2;
  p.head_dim = p.value_dim = 64;
  CHECK_NOTHROW(kernels::parallax_decode(p, nullptr));  // no sequences: nothing to do
  const auto refused = [](auto params, const char* word) {
    try {
      kernels::parallax_decode(params, nullptr);
    } catch (const xpu::Error& error) {
      return std::string(error.what()).find(word) != std::string::npos;
    }
    return false;
  };
  auto bad = p;
  bad.value_dim = 256;
  CHECK(refused(bad, "up to 128"));
  bad = p;
  bad.intercept_stride = 4;
  CHECK(refused(bad, "intercept has 16-byte aligned rows"));
  bad = p;
  int page = 0;
  bad.pages = &page;
  bad.page_size = 48;
  CHECK(refused(bad, "page size"));
  bad = p;
  bad.splits = 2;
  CHECK(refused(bad, "workspace and counters"));
}
