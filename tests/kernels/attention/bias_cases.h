// Shapes and biases of attention with a bias per key, soft (finite) and hard (-inf closes a key).
#pragma once
#include "kernels/attention/cases.h"
#include "kernels/attention/runner.h"

namespace lh::test {

/// Key j of kv head h is closed when closed(j, h); the others have `open` times a random bias.
template <class Closed>
std::vector<float> closing_bias(const AttentionCase& c, float open, const Closed& closed) {
  std::vector<float> bias = random_values<float>(std::size_t(c.nk) * c.kv_heads, 77, open);
  for (int j = 0; j < c.nk; ++j) {
    for (int h = 0; h < c.kv_heads; ++h) {
      if (closed(j, h)) bias[std::size_t(j * c.kv_heads + h)] = -HUGE_VALF;
    }
  }
  return bias;
}

struct NamedBias {
  std::string name;
  std::vector<float> values;
};

/// Every way in which keys are closed that the kernels tell apart; not all: the two that depend most
/// on the shape.
inline std::vector<NamedBias> biases(const AttentionCase& c, bool all) {
  std::vector<NamedBias> some = {
      {"soft", closing_bias(c, 1, [](int, int) { return false; })},
      // Runs that begin and end within tiles, and cover some whole.
      {"long runs", closing_bias(c, 1, [](int j, int h) { return (j + 50 * h) / 190 % 2 == 0; })},
  };
  if (!all) return some;
  const auto hash = [](int j, int h) {
    return (static_cast<unsigned>(j * 31 + h) * 2654435761u) >> 16;
  };
  for (NamedBias& b : std::vector<NamedBias>{
           {"all open", closing_bias(c, 0, [](int, int) { return false; })},
           {"all closed", closing_bias(c, 0, [](int, int) { return true; })},
           {"some closed", closing_bias(c, 0, [&](int j, int h) { return hash(j, h) % 3 != 0; })},
           {"one open",
            closing_bias(c, 0, [&](int j, int h) { return j != (c.nk / 5 + h) % c.nk; })},
           {"one kv head closed", closing_bias(c, 1, [](int, int h) { return h == 0; })}}) {
    some.push_back(std::move(b));
  }
  return some;
}

/// Causal unless stated; GQA of 1, 2 and 8, windows of the bias below and above a tile. Not all: the
/// three that differ most.
inline std::vector<NamedCase> bias_cases(int head_dim, bool all) {
  std::vector<NamedCase> cases;
  const auto documents = [&](const std::vector<int>& lengths, int heads, int kv_heads,
                             kernels::AttentionMask mask) {
    return packed(lengths, heads, kv_heads, head_dim, head_dim, mask);
  };
  cases.push_back({"window below a tile", documents({300, 61}, 2, 2, windowed(0, 0, 20)), true, 8});
  cases.push_back({"window above a tile", documents({450}, 1, 1, windowed(0, 0, 150)), true});
  // Parts of one document as context parallelism cuts it: several segments read the same keys, the
  // last sees keys of the distant past only.
  AttentionCase c = documents({}, 4, 2, windowed(0, 0, 25));
  c.nq = 210;
  c.nk = 420;
  c.segments = {{0, 60, 0, 160, 100}, {60, 70, 0, 400, 330}, {130, 40, 30, 370, 340},
                {180, 30, 0, 300, 900}};
  cases.push_back({"shared keys", c, true, 8});
  if (!all) return cases;
  cases.push_back({"no window of the bias", documents({200}, 1, 1, {}), true});
  cases.push_back({"window of a tile", documents({400}, 2, 1, windowed(0, 0, 128)), true});
  cases.push_back({"window above the length", documents({90, 130}, 2, 1, windowed(0, 0, 500)),
                   true});
  cases.push_back({"ragged documents, group of 8",
                   documents({1, 5, 64, 65, 2, 130, 3}, 8, 1, windowed(0, 0, 30)), true, 8});
  cases.push_back({"window and sinks", documents({420}, 2, 2, windowed(300, 5, 40)), true});
  cases.push_back({"sinks within the window of the bias",
                   documents({330}, 2, 1, windowed(70, 3, 100)), true});
  c = documents({260}, 2, 1, windowed(0, 0, 30));
  c.mask.causal = false;
  cases.push_back({"all keys", c, true});
  return cases;
}

struct BiasResults {
  std::vector<double> out, lse, dq, dk, dv, dbias;
  bool operator==(const BiasResults&) const = default;
};

template <class T>
BiasResults results_of(const AttentionRun<T>& run) {
  // Rows that nobody writes are not equal to themselves.
  const auto numbers = [](std::vector<double> x) {
    for (double& value : x) value = std::isnan(value) ? 1e30 : value;
    return x;
  };
  return {numbers(run.out.dense()),          numbers(to_double(run.lse.host())),
          numbers(run.dq.dense()),           numbers(run.dk.dense()),
          numbers(run.dv.dense()),           numbers(to_double(run.dbias.host()))};
}

inline double largest(const std::vector<double>& x) {
  double most = 0;
  for (const double value : x) most = std::isfinite(value) ? std::max(most, std::fabs(value)) : most;
  return most;
}

/// lse in units of log 2 and delta of every (head, query), as attention_bwd_prepare, from fp64.
inline std::vector<float> exact_stats(const AttentionCase& c, const AttentionInputs& in,
                                      const AttentionResults& want) {
  std::vector<float> lse, delta;
  for (int h = 0; h < c.heads; ++h) {
    for (int i = 0; i < c.nq; ++i) {
      const std::size_t row = std::size_t(i) * c.heads + h;
      double sum = in.dlse.empty() ? 0 : -in.dlse[row];
      for (int x = 0; x < c.value_dim; ++x) {
        sum += in.dout[row * c.value_dim + x] * want.out[row * c.value_dim + x];
      }
      const double exponent = want.lse[row] * 1.4426950408889634;
      lse.push_back(static_cast<float>(std::isinf(exponent) ? HUGE_VAL : exponent));
      delta.push_back(static_cast<float>(sum));
    }
  }
  lse.insert(lse.end(), delta.begin(), delta.end());
  return lse;
}

/// Of dbias: the kernels take probabilities from scores and lse, and differences of dout v and delta,
/// as they are, and neither error averages out in a sum over queries (attention_fp32_test.cpp).
constexpr double kFromStats = 1e-6;

/// Runs both passes on the cases in all modes: the dense formula and, where keys are closed, the same
/// bits whether closed tiles are left out or not. dbias is fp32 in every kernel and is held to that,
/// from exact stats: a rounded out moves delta and with it dbias, by another draw than the
/// composite's, whose largest error does not bound it.
template <class T, class Forward, class Backward>
void check_bias_cases(int head_dim, bool all, double absolute, const Forward& forward,
                      const Backward& backward) {
  const bool plain = std::string(XPU_BUILD) == "plain";
  for (const NamedCase& c : bias_cases(head_dim, all)) {
    const bool all_biases = all && plain && (c.name == "window below a tile" ||
                                             c.name == "shared keys");
    for (const NamedBias& b : biases(c.shape, all_biases)) {
      CAPTURE(c.name);
      CAPTURE(b.name);
      AttentionInputs in;
      AttentionResults want, composite, wide;
      const std::string what = c.name + ", " + b.name;
      for_each_mode([&] {
        AttentionRun<T> run(c.shape, 1, c.gap, true, true);
        run.set_bias(b.values, true);
        if (want.out.empty()) {
          in = run.inputs();
          want = reference_attention<Exact>(c.shape, in, true);
          composite = reference_attention<Rounded<T>>(c.shape, in, true);
          wide = reference_attention<Rounded<float>>(c.shape, in, true);
        }
        forward(run);
        backward(run);
        check_as_precise(run.out.dense(), want.out, composite.out, absolute, "out of " + what);
        check_as_precise(to_double(run.lse.host()), want.lse, composite.lse, absolute,
                         "lse of " + what);
        check_as_precise(run.dq.dense(), want.dq, composite.dq, absolute, "dq of " + what);
        check_as_precise(run.dk.dense(), want.dk, composite.dk, absolute, "dk of " + what);
        check_as_precise(run.dv.dense(), want.dv, composite.dv, absolute, "dv of " + what);
        if (b.name != "soft" && plain) {
          AttentionRun<T> every(c.shape, 1, c.gap, true, true);
          every.set_bias(b.values, false);
          forward(every);
          backward(every);
          CHECK(results_of(run) == results_of(every));
        }
        run.set_stats(exact_stats(c.shape, in, want));
        backward(run);
        check_as_precise(to_double(run.dbias.host()), want.dbias, wide.dbias,
                         absolute + kFromStats * largest(want.dbias), "dbias of " + what);
      }, true);
    }
  }
}

}  // namespace lh::test
