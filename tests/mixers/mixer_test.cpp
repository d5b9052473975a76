// Token mixers against the definition, row by row in double, and their contract: cost, caches,
// isolation of documents, refusals.
#include "mixers/mixer.h"

#include <doctest/doctest.h>

#include "nn/stable_rank.h"
#include "ops/attention_definition.h"
#include "support/gradcheck.h"

namespace {

using namespace lh;
using namespace lh::test;

struct Fixture {
  ModelConfig model;
  ParameterStore store{DType::kF64, 3};
  std::unique_ptr<TokenMixer> mixer;

  explicit Fixture(const MixerConfig& config, bool qk_norm = false, bool bias = false) {
    model.hidden_size = 12;
    model.num_layers = 1;
    model.num_heads = 4;
    model.num_kv_heads = 2;
    model.head_dim = 6;
    model.max_position = 64;
    model.init_std = 0.4;
    model.qk_norm = qk_norm;
    model.qkv_bias = bias;
    mixer = make_mixer(
        {model, config, "m", store, std::make_shared<const RopeTable>(model, DType::kF64)});
    for (const auto& parameter : store.all())  // zeros and ones would hide mistakes
      for (double& value : parameter->master.span<double>()) value += 0.1;
  }
  std::vector<double> weight(const std::string& name) const {
    const Parameter* parameter = store.find("m." + name);
    return parameter == nullptr ? std::vector<double>{} : to_doubles(parameter->master);
  }
};

/// y [out] = W x + b.
std::vector<double> project(const std::vector<double>& w, const std::vector<double>& b,
                            const double* x, size_t in) {
  std::vector<double> y(w.size() / in);
  for (size_t o = 0; o < y.size(); ++o) {
    y[o] = b.empty() ? 0 : b[o];
    for (size_t i = 0; i < in; ++i) y[o] += w[o * in + i] * x[i];
  }
  return y;
}

void norm(double* x, const std::vector<double>& w, double eps) {
  double sum = 0;
  for (size_t i = 0; i < w.size(); ++i) sum += x[i] * x[i];
  for (size_t i = 0; i < w.size(); ++i)
    x[i] *= w[i] / std::sqrt(sum / static_cast<double>(w.size()) + eps);
}

/// Su et al. 2021 in the split-half form of Llama.
void rotate(double* x, size_t d, double position) {
  for (size_t i = 0; i < d / 2; ++i) {
    const double angle =
        position * std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(d));
    const double a = x[i], b = x[i + d / 2];
    x[i] = a * std::cos(angle) - b * std::sin(angle);
    x[i + d / 2] = b * std::cos(angle) + a * std::sin(angle);
  }
}

bool visible(const MixerConfig& config, int64_t query, int64_t key) {
  return key <= query &&
         (config.window == 0 || query - key < config.window || key < config.sinks);
}

/// Solves a x = b by elimination; a [n, n] positive definite.
std::vector<double> solve(std::vector<double> a, std::vector<double> b) {
  const size_t n = b.size();
  for (size_t i = 0; i < n; ++i)
    for (size_t row = 0; row < n; ++row) {
      if (row == i) continue;
      const double factor = a[row * n + i] / a[i * n + i];
      for (size_t j = 0; j < n; ++j) a[row * n + j] -= factor * a[i * n + j];
      b[row] -= factor * b[i];
    }
  for (size_t i = 0; i < n; ++i) b[i] /= a[i * n + i];
  return b;
}

/// The probe that local linear attention uses: (Cov(k) + ridge)^-1 (mean k - q).
std::vector<double> best_probe(const std::vector<double>& p,
                               const std::vector<const double*>& keys, const double* q, size_t d,
                               double ridge) {
  std::vector<double> mean(d), covariance(d * d), target(d);
  for (size_t j = 0; j < p.size(); ++j)
    for (size_t i = 0; i < d; ++i) mean[i] += p[j] * keys[j][i];
  for (size_t i = 0; i < d; ++i) {
    target[i] = mean[i] - q[i];
    covariance[i * d + i] = ridge;
    for (size_t x = 0; x < d; ++x)
      for (size_t j = 0; j < p.size(); ++j)
        covariance[i * d + x] += p[j] * (keys[j][i] - mean[i]) * (keys[j][x] - mean[x]);
  }
  return solve(covariance, target);
}

/// One document [rows, 12] -> [rows, 12] by the definition.
std::vector<double> definition(const Fixture& f, const MixerConfig& config,
                               const std::vector<double>& x) {
  const size_t rows = x.size() / 12, d = 6;
  const bool queries = !config.uniform_weights, probes = config.kind == "parallax";
  std::vector<std::vector<double>> q, k, v, p;
  const auto heads_of = [&](const std::string& name, size_t row, bool rotated) {
    auto heads = project(f.weight(name + "_proj.weight"), f.weight(name + "_proj.bias"),
                         &x[row * 12], 12);
    const auto gate = name == "r" && config.probe_gate
                          ? project(f.weight("r_gate.weight"), {}, &x[row * 12], 12)
                          : std::vector<double>{};
    for (size_t h = 0; h < heads.size() / d && name != "v"; ++h) {
      double* head = &heads[h * d];
      if (f.model.qk_norm) norm(head, f.weight(name + "_norm.weight"), f.model.rms_norm_eps);
      for (size_t i = 0; i < d && !gate.empty(); ++i) head[i] /= 1 + std::exp(-gate[h * d + i]);
      if (rotated) rotate(head, d, static_cast<double>(row));
    }
    return heads;
  };
  for (size_t r = 0; r < rows; ++r) {
    q.push_back(queries ? heads_of("q", r, config.rope) : std::vector<double>(4 * d));
    k.push_back(heads_of("k", r, config.rope));
    v.push_back(heads_of("v", r, false));
    p.push_back(probes ? heads_of("r", r, config.rope && config.probe_rope)
                       : std::vector<double>(4 * d));
  }
  std::vector<double> y;
  for (size_t r = 0; r < rows; ++r) {
    std::vector<double> mixed(4 * d);
    for (size_t h = 0; h < 4; ++h) {
      double total = 0;
      std::vector<double> weights;
      std::vector<const double*> keys, values;
      for (size_t j = 0; j < rows; ++j) {
        if (!visible(config, static_cast<int64_t>(r), static_cast<int64_t>(j))) continue;
        double score = 0;
        for (size_t i = 0; i < d; ++i) score += q[r][h * d + i] * k[j][h / 2 * d + i];
        weights.push_back(std::exp(score / std::sqrt(6.0)));
        total += weights.back();
        keys.push_back(&k[j][h / 2 * d]);
        values.push_back(&v[j][h / 2 * d]);
      }
      for (double& weight : weights) weight /= total;
      std::vector<double> probe(&p[r][h * d], &p[r][h * d] + d);
      if (config.kind == "lla") probe = best_probe(weights, keys, &q[r][h * d], d, config.ridge);
      const auto score = [&](const double* key) {
        double sum = 0;
        for (size_t i = 0; i < d; ++i) sum += probe[i] * key[i];
        return sum;
      };
      double mean = 0;
      for (size_t j = 0; j < keys.size(); ++j) mean += weights[j] * score(keys[j]);
      for (size_t j = 0; j < keys.size(); ++j)
        for (size_t i = 0; i < d; ++i)
          mixed[h * d + i] += weights[j] * (1 + mean - score(keys[j])) * values[j][i];
    }
    if (config.output_gate) {
      const auto gate = project(f.weight("o_gate.weight"), {}, &x[r * 12], 12);
      for (size_t i = 0; i < mixed.size(); ++i) mixed[i] /= 1 + std::exp(-gate[i]);
    }
    const auto out =
        project(f.weight("o_proj.weight"), f.weight("o_proj.bias"), mixed.data(), 4 * d);
    y.insert(y.end(), out.begin(), out.end());
  }
  return y;
}

const std::vector<MixerConfig> kConfigs = {
    {.kind = "softmax"},
    {.kind = "softmax", .rope = false},
    {.kind = "softmax", .output_gate = true},
    {.kind = "sliding_window", .window = 1},
    {.kind = "sliding_window", .window = 5},
    {.kind = "sliding_window", .window = 4, .sinks = 3},
    {.kind = "sliding_window", .window = 30, .sinks = 2, .rope = false, .output_gate = true},
    {.kind = "parallax"},
    {.kind = "parallax", .window = 5},
    {.kind = "parallax", .window = 4, .sinks = 3, .output_gate = true},
    {.kind = "parallax", .probe_rope = false},
    {.kind = "parallax", .rope = false, .probe_gate = true},
    {.kind = "parallax", .uniform_weights = true},
    {.kind = "lla", .ridge = 0.5},
    {.kind = "lla", .window = 7, .sinks = 1},
};

TEST_CASE("packed documents through each mixer equal the definition on each alone") {
  const std::vector<int64_t> offsets = {0, 1, 12, 30};
  for (const MixerConfig& config : kConfigs)
    for (const bool extras : {false, true}) {
      const Fixture f(config, extras, extras);
      const Tensor x = random_tensor({30, 12}, DType::kF64, 4);
      const auto values = to_doubles(x);
      const auto got =
          to_doubles(f.mixer->forward(Variable(x), SequenceLayout::packed(offsets)).value());
      for (size_t s = 0; s + 1 < offsets.size(); ++s) {
        const auto begin = static_cast<size_t>(offsets[s] * 12),
                   end = static_cast<size_t>(offsets[s + 1] * 12);
        const auto want = definition(f, config,
                                     {values.begin() + static_cast<int64_t>(begin),
                                      values.begin() + static_cast<int64_t>(end)});
        for (size_t i = begin; i < end; ++i)
          CHECK_MESSAGE(std::abs(got[i] - want[i - begin]) < 1e-11, config.kind, " ",
                        config.window);
      }
    }
}

TEST_CASE("feeding a cache in pieces of any size equals the whole sequence") {
  for (const MixerConfig& config : kConfigs)
    for (const int64_t piece : {1, 2, 3, 7, 40}) {
      const Fixture f(config, true);
      const GradMode off(false);
      const Tensor x = random_tensor({40, 12}, DType::kF64, 4);
      const auto want = to_doubles(
          f.mixer->forward(Variable(x), SequenceLayout::packed(std::vector<int64_t>{0, 40}))
              .value());
      const auto cache = f.mixer->make_cache(40);
      for (int64_t first = 0; first < 40; first += piece) {
        const int64_t count = std::min<int64_t>(piece, 40 - first);
        const auto got = to_doubles(f.mixer
                                        ->forward_cached(Variable(x.slice(0, first, first + count)),
                                                         SequenceLayout::run(first, count), *cache)
                                        .value());
        for (size_t i = 0; i < got.size(); ++i)
          CHECK(std::abs(got[i] - want[static_cast<size_t>(first * 12) + i]) < 1e-12);
      }
      if (config.window > 0 && config.window < 10 && piece == 1) {
        const auto whole = Fixture(kConfigs[0]).mixer->make_cache(40);
        CHECK(cache->bytes() < whole->bytes());
      }
      // Keys and values of 40 tokens, 2 heads of 6 channels in f64: a probe is not cached.
      if (config.window == 0) CHECK(cache->bytes() == 2 * 40 * 2 * 6 * 8);
    }
}

TEST_CASE("each mixer's gradient is that of central differences") {
  for (const MixerConfig& config : kConfigs) {
    const Fixture f(config, true);
    check_gradients(
        [&](const auto& in) {
          return f.mixer->forward(in[0], SequenceLayout::packed(std::vector<int64_t>{0, 3, 10}));
        },
        {random_tensor({10, 12}, DType::kF64, 4)});
  }
}

TEST_CASE("the arithmetic reported is that of the mask's area") {
  const std::vector<int64_t> offsets = {0, 9, 31};
  for (const MixerConfig& config : kConfigs) {
    const Fixture f(config);
    double pairs = 0;
    for (size_t s = 0; s + 1 < offsets.size(); ++s)
      for (int64_t q = 0; q < offsets[s + 1] - offsets[s]; ++q)
        for (int64_t k = 0; k <= q; ++k) pairs += visible(config, q, k) ? 1 : 0;
    // Scores and weighted values: one multiply-add per pair, head and channel each. A probe has both
    // again; a covariance takes half of d.
    double products = 2, per_query = 0;
    if (config.kind == "parallax") products = config.uniform_weights ? 3 : 4;
    if (config.kind == "lla") products = 4 + 6.0 / 2, per_query = 6.0 * 6 * 6 / 3;
    CHECK(f.mixer->flops(SequenceLayout::packed(offsets)).useful ==
          doctest::Approx(2 * products * pairs * 4 * 6 + per_query * 31 * 4));
  }
}

/// A mixer whose parameters keep their initial values.
std::vector<double> fresh_output(const MixerConfig& config, bool qk_norm, ParameterStore& store) {
  ModelConfig model;
  model.hidden_size = 12;
  model.num_layers = 1;
  model.num_heads = 4;
  model.num_kv_heads = 2;
  model.head_dim = 6;
  model.init_std = 0.4;
  model.qk_norm = qk_norm;
  const auto mixer = make_mixer(
      {model, config, "m", store, std::make_shared<const RopeTable>(model, DType::kF64)});
  const Variable y = mixer->forward(Variable(random_tensor({40, 12}, DType::kF64, 4)),
                                    SequenceLayout::packed(std::vector<int64_t>{0, 40}));
  backward(y, random_tensor({40, 12}, DType::kF64, 5));
  return to_doubles(y.value());
}

TEST_CASE("parallax with a probe of zeros begins as softmax attention and learns its probe") {
  for (const bool qk_norm : {false, true}) {
    ParameterStore plain(DType::kF64, 3), with_probe(DType::kF64, 3);
    const auto want = fresh_output({.kind = "softmax"}, qk_norm, plain);
    CHECK(fresh_output({.kind = "parallax", .zero_probe = true}, qk_norm, with_probe) == want);
    const Parameter* first = with_probe.find(qk_norm ? "m.r_norm.weight" : "m.r_proj.weight");
    double largest = 0;
    for (const double g : to_doubles(first->variable.grad())) largest = std::max(largest, std::abs(g));
    CHECK(largest > 1e-3);
  }
}

/// What the heads give, [rows, 24], through output projections that choose one half of the channels and the other.
std::vector<double> head_outputs(const Fixture& f, const Tensor& x, const SequenceLayout& layout) {
  std::vector<double> outputs(static_cast<size_t>(x.size(0) * 24));
  for (const size_t half : {0, 1}) {
    auto weight = f.store.find("m.o_proj.weight")->master.span<double>();
    for (size_t i = 0; i < 12; ++i)
      for (size_t j = 0; j < 24; ++j) weight[i * 24 + j] = j == half * 12 + i ? 1 : 0;
    const auto part = to_doubles(f.mixer->forward(Variable(x), layout).value());
    for (size_t i = 0; i < part.size(); ++i) outputs[i / 12 * 24 + half * 12 + i % 12] = part[i];
  }
  return outputs;
}

TEST_CASE("mixers that correct softmax attention report by how much, over all they saw") {
  for (const auto& [config, plain] :
       {std::pair{MixerConfig{.kind = "parallax"}, MixerConfig{.kind = "softmax"}},
        {{.kind = "parallax", .window = 4, .sinks = 3},
         {.kind = "sliding_window", .window = 4, .sinks = 3}},
        {{.kind = "lla", .ridge = 0.5}, {.kind = "softmax"}}}) {
    const Fixture f(config), softmax(plain);  // parameters of one name are equal
    MixerReport report;
    f.mixer->describe(report);
    CHECK(!report.figure("correction_ratio").seen());
    double corrections = 0, squares = 0;
    for (const int64_t rows : {30, 11}) {
      const Tensor x = random_tensor({rows, 12}, DType::kF64, static_cast<uint64_t>(rows));
      SequenceLayout layout = SequenceLayout::packed(std::vector<int64_t>{0, 7, rows});
      const auto out = head_outputs(f, x, layout), without = head_outputs(softmax, x, layout);
      for (size_t i = 0; i < out.size(); ++i) {
        corrections += (out[i] - without[i]) * (out[i] - without[i]);
        squares += without[i] * without[i];
      }
      layout.set_report(&report);
      f.mixer->forward(Variable(x), layout);
    }
    CHECK(corrections > 0.01 * squares);
    CHECK(report.figure("correction_ratio").total().value() ==
          doctest::Approx(std::sqrt(corrections / squares)).epsilon(1e-10));
  }
}

TEST_CASE("parallax reports the size of its probe, its gate, and the stable ranks of what weighs keys") {
  const Fixture f({.kind = "parallax", .probe_gate = true}), open({.kind = "parallax"});
  const Tensor x = random_tensor({30, 12}, DType::kF64, 4);
  SequenceLayout layout = SequenceLayout::packed(std::vector<int64_t>{0, 30});
  const auto reported = [&](const Fixture& fixture, const std::string& name) {
    MixerReport report;
    fixture.mixer->describe(report);
    layout.set_report(&report);
    fixture.mixer->forward(Variable(x), layout);
    const MixerFigure& figure = report.figure(name);
    CHECK(!figure.by_head);
    return figure.mixers.contains("m") ? figure.mixers.at("m").front().value() : -1;
  };
  double gates = 0, gated = 0, squares = 0;  // rotation keeps the norm
  for (size_t row = 0; row < 30; ++row) {
    const double* values = x.data<double>() + row * 12;
    const auto probe = project(f.weight("r_proj.weight"), {}, values, 12);
    const auto logits = project(f.weight("r_gate.weight"), {}, values, 12);
    for (size_t i = 0; i < 24; ++i) {
      const double gate = 1 / (1 + std::exp(-logits[i]));
      gates += gate;
      gated += probe[i] * probe[i] * gate * gate;
      squares += probe[i] * probe[i];
    }
  }
  CHECK(reported(open, "probe_norm") == doctest::Approx(std::sqrt(squares / (30 * 4))));
  CHECK(reported(open, "probe_gate") == -1);
  CHECK(reported(f, "probe_norm") == doctest::Approx(std::sqrt(gated / (30 * 4))));
  CHECK(reported(f, "probe_gate") == doctest::Approx(gates / (30 * 24)));
  const Fixture uniform({.kind = "parallax", .uniform_weights = true});
  for (const auto& [name, projection] : {std::pair{"probe", "r"}, {"query", "q"}, {"key", "k"}}) {
    const std::string figure = std::string(name) + "_stable_rank";
    const Parameter* weight = open.store.find(std::string("m.") + projection + "_proj.weight");
    CHECK(reported(open, figure) == stable_rank(weight->master));
    CHECK((reported(uniform, figure) == -1) == (projection[0] == 'q'));
  }
}

TEST_CASE("a layout that takes other documents equals a fresh one, in its copies too") {
  SequenceLayout layout = SequenceLayout::reusable(std::vector<int64_t>{0, 7, 20}, kCpuDevice);
  const SequenceLayout copy = layout;
  const auto plan = layout.plan({3, 1}, 0.5);
  CHECK(copy.plan({3, 1}, 0.5) == plan);
  const void* positions = layout.positions().raw();
  std::vector<int64_t> each_row;
  for (int64_t row = 0; row <= 20; ++row) each_row.push_back(row);
  // More documents than there is room for: kernels need other arrays.
  for (const auto& [offsets, fits] : {std::pair{std::vector<int64_t>{0, 20}, true},
                                      {std::vector<int64_t>{0, 1, 4, 9, 20}, true},
                                      {each_row, false},
                                      {std::vector<int64_t>{0, 20}, true}}) {
    CHECK(layout.reassign(offsets) == fits);
    const SequenceLayout fresh = SequenceLayout::packed(offsets);
    CHECK(copy.longest() == fresh.longest());
    CHECK(copy.positions().raw() == positions);
    CHECK(to_doubles(copy.positions()) == to_doubles(fresh.positions()));
    CHECK(copy.plan({3, 1}, 0.5) == plan);
    REQUIRE(plan->segments.size() == fresh.segments().size());
    CHECK(static_cast<int64_t>(plan->segments.size()) < plan->segment_capacity);
    for (size_t i = 0; i < plan->segments.size(); ++i) {
      CHECK(plan->segments[i].query_begin == fresh.segments()[i].query_begin);
      CHECK(plan->segments[i].key_length == fresh.segments()[i].key_length);
    }
  }
  CHECK_THROWS_WITH_AS(layout.reassign(std::vector<int64_t>{0, 19}),
                       doctest::Contains("a layout of 20 rows cannot take 19"), Error);
  SequenceLayout fixed = SequenceLayout::packed(std::vector<int64_t>{0, 20});
  CHECK_THROWS_WITH_AS(fixed.reassign(std::vector<int64_t>{0, 20}),
                       doctest::Contains("only a reusable layout"), Error);
}

TEST_CASE("steps are not recorded while attention is computed by its definitions, on the host") {
  for (const char* kind : {"softmax", "sliding_window", "parallax"}) {
    CAPTURE(kind);
    MixerConfig config{.kind = kind};
    if (config.kind == "sliding_window") config.window = 8;
    const Fixture f(config);
    const bool before = definitions_chosen();
    choose_definitions(false);
    CHECK(f.mixer->is_recordable());
    choose_definitions(true);
    CHECK(!f.mixer->is_recordable());
    choose_definitions(before);
  }
}

TEST_CASE("an unknown kind lists the known ones") {
  CHECK_THROWS_WITH_AS(Fixture({.kind = "softmx"}), doctest::Contains("sliding_window"),
                       ConfigError);
}

}  // namespace
