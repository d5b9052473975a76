// SP-KV against its definition in double, its gradients against central differences, its identities
// (open gates, a window as long as the document), and its cache against the hard mask.
#include "mixers/self_pruned.h"

#include <doctest/doctest.h>

#include <numeric>

#include "autograd/engine.h"
#include "backend/elementwise.h"
#include "mixers/self_pruned_cache.h"
#include "support/compare.h"

namespace {

using namespace lh;
using namespace lh::test;

constexpr int64_t kHidden = 12, kHeads = 8, kHeadDim = 4;
constexpr GatePhase kSoft{GateMode::kSoft, 0, {}, nullptr};
constexpr GatePhase kAnneal{GateMode::kAnneal, 0.3, {}, nullptr};
constexpr GatePhase kHard{};

struct Fixture {
  ModelConfig model;
  MixerConfig config;
  ParameterStore store;
  std::unique_ptr<TokenMixer> mixer;

  explicit Fixture(int64_t kv_heads, MixerConfig mixer_config = {.kind = "sp_kv", .window = 4},
                   DType dtype = DType::kF64)
      : config(std::move(mixer_config)), store(dtype, 3) {
    model.hidden_size = kHidden;
    model.num_layers = 1;
    model.num_heads = kHeads;
    model.num_kv_heads = kv_heads;
    model.head_dim = kHeadDim;
    model.max_position = 512;
    model.init_std = 0.5;
    mixer = make_mixer(
        {model, config, "m", store, std::make_shared<const RopeTable>(model, dtype)});
    set_bias(0);  // utilities on both sides of the threshold
  }
  void set_bias(double value) {
    if (Parameter* bias = store.find("m.utility.down.bias")) {
      dispatch_float(bias->master.dtype(), "test", [&]<typename T>() {
        for (T& entry : bias->master.span<T>()) entry = T(static_cast<accumulate_t<T>>(value));
      });
    }
  }
  std::vector<double> weight(const std::string& name) const {
    return to_doubles(store.find("m." + name)->master);
  }
  std::vector<double> forward(const Tensor& x, const std::vector<int64_t>& offsets,
                              const GatePhase& phase, MixerReport* report = nullptr) const {
    const GradMode off(false);
    SequenceLayout layout = SequenceLayout::packed(offsets);
    layout.set_gates(phase);
    layout.set_report(report);
    return to_doubles(mixer->forward(Variable(x), layout).value());
  }
};

std::vector<double> affine(const std::vector<double>& w, const std::vector<double>& b,
                           const double* x, size_t in) {
  std::vector<double> y(w.size() / in);
  for (size_t o = 0; o < y.size(); ++o) {
    y[o] = b.empty() ? 0 : b[o];
    for (size_t i = 0; i < in; ++i) y[o] += w[o * in + i] * x[i];
  }
  return y;
}

std::vector<double> utilities(const Fixture& f, const double* x) {
  if (!f.config.global_kv_heads.empty()) {
    std::vector<double> fixed(static_cast<size_t>(f.model.num_kv_heads), 0);
    for (const int64_t head : f.config.global_kv_heads) fixed[static_cast<size_t>(head)] = 1;
    return fixed;
  }
  auto inner = affine(f.weight("utility.up.weight"), f.weight("utility.up.bias"), x, kHidden);
  for (double& value : inner) value /= 1 + std::exp(-value);
  auto u = affine(f.weight("utility.down.weight"), f.weight("utility.down.bias"), inner.data(),
                  inner.size());
  for (double& value : u) value = 1 / (1 + std::exp(-value));
  return u;
}

/// One document [rows, kHidden] without rope: a gate multiplies the weight of a key that is out of
/// the window.
std::vector<double> definition(const Fixture& f, const GatePhase& phase, const double* x,
                               size_t rows) {
  const size_t group = static_cast<size_t>(kHeads / f.model.num_kv_heads), d = kHeadDim;
  std::vector<std::vector<double>> q, k, v, u;
  for (size_t r = 0; r < rows; ++r) {
    q.push_back(affine(f.weight("q_proj.weight"), {}, x + r * kHidden, kHidden));
    k.push_back(affine(f.weight("k_proj.weight"), {}, x + r * kHidden, kHidden));
    v.push_back(affine(f.weight("v_proj.weight"), {}, x + r * kHidden, kHidden));
    u.push_back(utilities(f, x + r * kHidden));
  }
  const double threshold = phase.threshold.value_or(f.config.threshold);
  std::vector<double> y;
  for (size_t t = 0; t < rows; ++t) {
    std::vector<double> mixed(kHeads * d, 0);
    for (size_t h = 0; h < kHeads; ++h) {
      double total = 0;
      for (size_t s = 0; s <= t; ++s) {
        double score = 0;
        for (size_t i = 0; i < d; ++i) score += q[t][h * d + i] * k[s][h / group * d + i];
        double weight = std::exp(score / std::sqrt(static_cast<double>(d)));
        if (t - s >= static_cast<size_t>(f.config.window)) {
          const double z = u[s][h / group] >= threshold ? 1 : 0;
          const double open = u[s][h / group], kept = f.config.weighted ? z * open : z;
          if (phase.mode == GateMode::kSoft) weight *= open + 1e-8;
          else if (phase.mode == GateMode::kHard) weight *= kept + (f.config.weighted ? 1e-8 * z : 0);
          else weight *= (1 - phase.alpha) * open + phase.alpha * kept + 1e-8;
        }
        total += weight;
        for (size_t i = 0; i < d; ++i) mixed[h * d + i] += weight * v[s][h / group * d + i];
      }
      for (size_t i = 0; i < d; ++i) mixed[h * d + i] /= total;
    }
    const auto out = affine(f.weight("o_proj.weight"), {}, mixed.data(), kHeads * d);
    y.insert(y.end(), out.begin(), out.end());
  }
  return y;
}

TEST_CASE("sp_kv over packed documents equals the definition in every phase and grouping") {
  const std::vector<int64_t> offsets = {0, 1, 12, 30};
  const Tensor x = random_tensor({30, kHidden}, DType::kF64, 4);
  for (const int64_t kv_heads : {8, 4, 1})
    for (const int64_t window : {1, 4, 9})
      for (GatePhase phase : {kSoft, kAnneal, kHard, kHard}) {
        if (phase.mode == GateMode::kHard && window == 4) phase.threshold = 0.7;  // swept
        const Fixture f(kv_heads, {.kind = "sp_kv", .window = window, .rope = false});
        const auto got = f.forward(x, offsets, phase);
        for (size_t s = 0; s + 1 < offsets.size(); ++s) {
          const auto want = definition(f, phase, x.data<double>() + offsets[s] * kHidden,
                                       static_cast<size_t>(offsets[s + 1] - offsets[s]));
          for (size_t i = 0; i < want.size(); ++i)
            CHECK(std::abs(got[static_cast<size_t>(offsets[s] * kHidden) + i] - want[i]) < 1e-11);
        }
      }
}

TEST_CASE("keys weighted by their utility: definition in every phase, gradient, and cache") {
  const MixerConfig config{.kind = "sp_kv", .window = 4, .rope = false, .weighted = true};
  const Tensor x = random_tensor({30, kHidden}, DType::kF64, 4);
  for (const int64_t kv_heads : {8, 2})
    for (const GatePhase& phase : {kSoft, kAnneal, kHard}) {
      const Fixture f(kv_heads, config);
      const auto want = definition(f, phase, x.data<double>(), 30), got = f.forward(x, {0, 30}, phase);
      for (size_t i = 0; i < want.size(); ++i) CHECK(std::abs(got[i] - want[i]) < 1e-11);
    }
  // The hidden states learn through the gates of kept keys even in the hard phase.
  const Fixture f(4, config);
  const Variable leaf = Variable::leaf(random_tensor({30, kHidden}, DType::kF64, 4));
  const Tensor weights = random_tensor({30, kHidden}, DType::kF64, 9);
  SequenceLayout layout = SequenceLayout::packed(std::vector<int64_t>{0, 30});
  backward(f.mixer->forward(leaf, layout), weights);
  for (int64_t i = 0; i < 30 * kHidden; i += 7) {
    double& entry = leaf.value().data<double>()[i];
    const double kept = entry, step = 1e-6;
    const auto objective = [&] {
      const auto y = f.forward(leaf.value(), {0, 30}, kHard), w = to_doubles(weights);
      return std::inner_product(y.begin(), y.end(), w.begin(), 0.0);
    };
    entry = kept + step;
    const double up = objective();
    entry = kept - step;
    const double down = objective();
    entry = kept;
    CHECK(leaf.grad().data<double>()[i] ==
          doctest::Approx((up - down) / (2 * step)).epsilon(1e-5).scale(1));
  }
  for (const int64_t piece : {1, 2, 7, 30}) {
    const GradMode off(false);
    const auto want = f.forward(x, {0, 30}, kHard);
    const auto cache = f.mixer->make_cache(30);
    for (int64_t first = 0; first < 30; first += piece) {
      const int64_t count = std::min<int64_t>(piece, 30 - first);
      const auto got = to_doubles(f.mixer
                                      ->forward_cached(Variable(x.slice(0, first, first + count)),
                                                       SequenceLayout::run(first, count), *cache)
                                      .value());
      for (size_t i = 0; i < got.size(); ++i)
        CHECK(std::abs(got[i] - want[static_cast<size_t>(first * kHidden) + i]) < 1e-12);
    }
    CHECK_THROWS_WITH_AS(f.mixer->forward_cached(Variable(x.slice(0, 0, 1)), SequenceLayout::run(30, 1),
                                                 *cache),
                         doctest::Contains("holds 30 tokens"), Error);
  }
}

TEST_CASE("drawn gates are those of a run's seed and step, whichever rows are here") {
  const Fixture f(4, {.kind = "sp_kv", .window = 2, .rope = false});
  const Tensor x = random_tensor({40, kHidden}, DType::kF64, 4);
  const auto run = [&](int64_t begin, uint64_t seed) {  // the document [begin, 40)
    const GradMode off(false);
    GatePhase phase;
    phase.mode = GateMode::kSample;
    phase.draw_seed = seed;
    SequenceLayout layout = SequenceLayout::packed(std::vector<int64_t>{0, 40 - begin});
    layout.set_gates(phase);
    std::vector<int64_t> numbers(static_cast<size_t>(40 - begin));
    std::iota(numbers.begin(), numbers.end(), 500 + begin);
    layout.set_row_numbers(Tensor::from(numbers, {40 - begin}));
    return to_doubles(f.mixer->forward(Variable(x.slice(0, begin, 40)), layout).value());
  };
  const auto packed = [&](uint64_t seed) {  // documents [0, 15) and [15, 40)
    const GradMode off(false);
    GatePhase phase;
    phase.mode = GateMode::kSample;
    phase.draw_seed = seed;
    SequenceLayout layout = SequenceLayout::packed(std::vector<int64_t>{0, 15, 40});
    layout.set_gates(phase);
    std::vector<int64_t> numbers(40);
    std::iota(numbers.begin(), numbers.end(), 500);
    layout.set_row_numbers(Tensor::from(numbers, {40}));
    return to_doubles(f.mixer->forward(Variable(x), layout).value());
  };
  const auto together = packed(1), alone = run(15, 1);
  CHECK(std::equal(alone.begin(), alone.end(), together.begin() + 15 * kHidden));
  CHECK(packed(1) == together);
  CHECK(packed(2) != together);
}

TEST_CASE("heads that are global or local by the recipe: definition, cache and no predictor") {
  const Fixture f(4, {.kind = "sp_kv", .window = 5, .rope = false, .global_kv_heads = {0, 3}});
  for (const auto& parameter : f.store.all())
    CHECK(parameter->name.find("utility") == std::string::npos);
  constexpr int64_t kRows = 240;  // full heads grow three times
  const Tensor x = random_tensor({kRows, kHidden}, DType::kF64, 4);
  const auto want = definition(f, kHard, x.data<double>(), kRows);
  for (const GatePhase& phase : {kSoft, kAnneal, kHard}) {
    const auto got = f.forward(x, {0, kRows}, phase);
    for (size_t i = 0; i < want.size(); ++i) CHECK(std::abs(got[i] - want[i]) < 1e-11);
  }
  const GradMode off(false);
  const auto cache = f.mixer->make_cache(kRows);
  for (int64_t i = 0; i < kRows; ++i) {
    const auto got = to_doubles(f.mixer->forward_cached(Variable(x.slice(0, i, i + 1)),
                                                        SequenceLayout::run(i, 1), *cache)
                                    .value());
    for (size_t c = 0; c < kHidden; ++c)
      CHECK(std::abs(got[c] - want[static_cast<size_t>(i) * kHidden + c]) < 1e-11);
  }
  const auto& pruned = dynamic_cast<const SelfPrunedCache&>(*cache);
  CHECK(pruned.row_counts() == std::vector<int64_t>{kRows, 5, 5, kRows});
  const KeptKeys keys = pruned.kept_keys();
  CHECK(keys.kept == 2 * kRows + 10);
  CHECK(keys.all == 4 * kRows);
  CHECK(keys.bytes == cache->bytes());
  CHECK(keys.dense_bytes == keys.all * 2 * kHeadDim * 8);
}

TEST_CASE("the gradients of sp_kv are central differences, a frozen predictor has none") {
  const std::vector<int64_t> offsets = {0, 3, 12};
  for (const int64_t kv_heads : {8, 4, 1})
    for (const GatePhase& phase : {kSoft, kAnneal, kHard}) {
      const Fixture f(kv_heads, {.kind = "sp_kv", .window = 2});
      const Variable x = Variable::leaf(random_tensor({12, kHidden}, DType::kF64, 4));
      const Tensor weights = random_tensor({12, kHidden}, DType::kF64, 9);
      SequenceLayout layout = SequenceLayout::packed(offsets);
      layout.set_gates(phase);
      backward(f.mixer->forward(x, layout), weights);
      const auto objective = [&] {
        const auto y = f.forward(x.value(), offsets, phase), w = to_doubles(weights);
        double sum = 0;
        for (size_t i = 0; i < y.size(); ++i) sum += y[i] * w[i];
        return sum;
      };
      const auto check = [&](Tensor value, const Tensor& gradient) {
        REQUIRE(gradient.defined());
        const auto entries = value.span<double>();
        for (size_t i = 0; i < entries.size(); i += 3) {
          const double kept = entries[i], step = 1e-5;
          entries[i] = kept + step;
          const double up = objective();
          entries[i] = kept - step;
          const double down = objective();
          entries[i] = kept;
          CHECK(gradient.data<double>()[i] ==
                doctest::Approx((up - down) / (2 * step)).epsilon(1e-6).scale(1));
        }
      };
      check(x.value(), x.grad());
      for (const auto& parameter : f.store.all()) {
        CAPTURE(parameter->name);
        const bool predictor = parameter->name.find("utility") != std::string::npos;
        if (predictor && phase.mode != GateMode::kSoft) {
          CHECK(!parameter->variable.grad().defined());
        } else {
          check(parameter->master, parameter->variable.grad());
        }
      }
    }
}

TEST_CASE("open gates, and a window as long as the document, are full attention") {
  const std::vector<int64_t> offsets = {0, 5, 40};
  const Tensor x = random_tensor({40, kHidden}, DType::kF64, 4);
  for (const int64_t kv_heads : {8, 4, 1}) {
    const auto dense = Fixture(kv_heads, {.kind = "softmax"}).forward(x, offsets, kHard);
    Fixture open(kv_heads);
    open.set_bias(60);
    CHECK(open.forward(x, offsets, kHard) == dense);
    const auto soft = open.forward(x, offsets, kSoft);
    for (size_t i = 0; i < dense.size(); ++i) CHECK(std::abs(soft[i] - dense[i]) < 1e-7);
    const Fixture wide(kv_heads, {.kind = "sp_kv", .window = 35});
    for (const GatePhase& phase : {kSoft, kAnneal, kHard})
      CHECK(wide.forward(x, offsets, phase) == dense);
  }
}

TEST_CASE("fresh gates are open: training starts within a percent of full attention") {
  ModelConfig model;
  model.hidden_size = 64;
  model.num_layers = 1;
  model.num_heads = 4;
  model.num_kv_heads = 2;
  const MixerConfig config{.kind = "sp_kv", .window = 1};
  ParameterStore store(DType::kF64, 1);
  const auto mixer = make_mixer(
      {model, config, "m", store, std::make_shared<const RopeTable>(model, DType::kF64)});
  CHECK(store.find("m.utility.up.weight")->master.shape() == Shape{16, 64});
  CHECK(store.find("m.utility.down.weight")->master.shape() == Shape{2, 16});
  MixerReport report;
  GatePhase phase = kHard;
  phase.threshold = 0.98;
  SequenceLayout layout = SequenceLayout::packed(std::vector<int64_t>{0, 200});
  layout.set_gates(phase);
  layout.set_report(&report);
  mixer->forward(Variable(random_tensor({200, 64}, DType::kF64, 2)), layout);
  CHECK(report.figure("kv_density").total().weight == 2 * 199);
  CHECK(report.figure("kv_density").total().value() == 1);
}

TEST_CASE("the last window of a document has no gate gradient, a short document none at all") {
  const Fixture f(4, {.kind = "sp_kv", .window = 6});
  SequenceLayout layout = SequenceLayout::packed(std::vector<int64_t>{0, 6, 9});
  layout.set_gates(kSoft);
  const Variable x(random_tensor({9, kHidden}, DType::kF64, 4));
  backward(f.mixer->forward(x, layout), random_tensor({9, kHidden}, DType::kF64, 5));
  for (const char* name : {"up.weight", "up.bias", "down.weight", "down.bias"})
    for (const double g :
         to_doubles(f.store.find(std::string("m.utility.") + name)->variable.grad()))
      CHECK(g == 0);
}

TEST_CASE("later tokens change nothing before them") {
  for (const GatePhase& phase : {kSoft, kAnneal, kHard}) {
    const Fixture f(4);
    Tensor x = random_tensor({40, kHidden}, DType::kF64, 4);
    const auto before = f.forward(x, {0, 40}, phase);
    for (int64_t i = 25 * kHidden; i < 40 * kHidden; ++i) x.data<double>()[i] += 1;
    const auto after = f.forward(x, {0, 40}, phase);
    for (size_t i = 0; i < 25 * kHidden; ++i) CHECK(before[i] == after[i]);
  }
}

TEST_CASE("a self-pruned cache fed in pieces of any size equals the hard mask") {
  constexpr int64_t kRows = 200;
  for (const auto& [dtype, bound] : {std::pair{DType::kF64, 1e-12}, {DType::kF32, 2e-5}})
    for (const int64_t kv_heads : {8, 4, 1})
      for (const int64_t window : {1, 5, 16, 17, 300})
        for (const int64_t piece : {1, 2, 33, 170, 200}) {
          CAPTURE(window);
          CAPTURE(piece);
          const Fixture f(kv_heads, {.kind = "sp_kv", .window = window}, dtype);
          const GradMode off(false);
          Tensor x = Tensor::empty({kRows, kHidden}, dtype);
          cpu::copy(random_tensor({kRows, kHidden}, DType::kF64, 4), x);
          MixerReport report;
          const auto want = f.forward(x, {0, kRows}, kHard, &report);
          const auto cache = f.mixer->make_cache(kRows);
          double worst = 0;
          for (int64_t first = 0; first < kRows; first += piece) {
            const int64_t count = std::min<int64_t>(piece, kRows - first);
            const Tensor rows = x.slice(0, first, first + count);
            const auto got = to_doubles(
                f.mixer->forward_cached(Variable(rows), SequenceLayout::run(first, count), *cache)
                    .value());
            for (size_t i = 0; i < got.size(); ++i)
              worst = std::max(worst,
                               std::abs(got[i] - want[static_cast<size_t>(first * kHidden) + i]));
          }
          CHECK(worst < bound);
          const auto rows = dynamic_cast<const SelfPrunedCache&>(*cache).row_counts();
          const MixerFigure& density = report.figure(kKvDensity);
          int64_t kept = 0, most = 0;
          for (size_t g = 0; g < rows.size(); ++g) {
            const ReportedMean& reported = density.mixers.at("m")[g];
            CHECK(rows[g] == std::min(window, kRows) + static_cast<int64_t>(reported.sum));
            kept += rows[g];
            // Pages for the tokens up to the next look, of which the ring may drop a window.
            most += std::min<int64_t>(kRows + 15, rows[g] + window + 64 + 15);
          }
          CHECK((density.total().sum > 0) == (window < kRows));
          // rho of section 1.7, over the heads: (window + density (tokens - window)) / tokens.
          const KeptKeys keys = cache->kept_keys();
          CHECK(keys.kept == kept);
          CHECK(static_cast<double>(keys.kept) / static_cast<double>(keys.all) ==
                doctest::Approx((static_cast<double>(std::min(window, kRows)) +
                                 density.total().value() *
                                     static_cast<double>(std::max<int64_t>(0, kRows - window))) /
                                static_cast<double>(kRows)));
          const auto row = static_cast<int64_t>(2 * kHeadDim * dtype_size(dtype));
          CHECK(cache->bytes() >= kept * row);
          CHECK(cache->bytes() <= most * row * 9 / 8 + kv_heads * (kRows + 64));
        }
}

TEST_CASE("closed gates leave a cache of the window alone, and a full cache says so") {
  constexpr int64_t kRows = 500;
  Fixture f(2, {.kind = "sp_kv", .window = 4});
  f.set_bias(-60);
  const GradMode off(false);
  const auto cache = f.mixer->make_cache(kRows);
  const Tensor x = random_tensor({kRows, kHidden}, DType::kF64, 4);
  f.mixer->forward_cached(Variable(x.slice(0, 0, 20)), SequenceLayout::run(0, 20), *cache);
  const int64_t early = cache->bytes();
  for (int64_t i = 20; i < kRows; ++i)
    f.mixer->forward_cached(Variable(x.slice(0, i, i + 1)), SequenceLayout::run(i, 1), *cache);
  CHECK(cache->bytes() == early);
  CHECK(cache->bytes() < cache->kept_keys().dense_bytes / 4);
  CHECK(dynamic_cast<const SelfPrunedCache&>(*cache).row_counts() == std::vector<int64_t>{4, 4});
  CHECK_THROWS_WITH_AS(f.mixer->forward_cached(Variable(x.slice(0, 0, 1)),
                                               SequenceLayout::run(kRows, 1), *cache),
                       doctest::Contains("holds 500 tokens, 500 of them are taken"), Error);
}

TEST_CASE("sp_kv refuses a missing window and a threshold that keeps all or nothing") {
  CHECK_THROWS_WITH_AS(Fixture(2, {.kind = "sp_kv"}), doctest::Contains("window >= 1"),
                       ConfigError);
  CHECK_THROWS_WITH_AS(Fixture(2, {.kind = "sp_kv", .window = 4, .threshold = 1}),
                       doctest::Contains("0 < threshold < 1"), ConfigError);
}

}  // namespace
