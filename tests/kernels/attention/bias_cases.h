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

/// Every way in which keys are closed that the kernels tell apart; not all: the two that most depend
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

/// Causal unless stated; GQA of 1, 2 and 8, windows of the bias below and above a tile.
inline std::vector<NamedCase> bias_cases(int head_dim) {
  std::vector<NamedCase> cases;
  const auto documents = [&](const std::vector<int>& lengths, int heads, int kv_heads,
                             kernels::AttentionMask mask) {
    return packed(lengths, heads, kv_heads, head_dim, head_dim, mask);
  };
  cases.push_back({"no window of the bias", documents({200}, 1, 1, {}), true});
  cases.push_back({"window below a tile", documents({300, 61}, 2, 2, windowed(0, 0, 20)), true, 8});
  cases.push_back({"window of a tile", documents({400}, 2, 1, windowed(0, 0, 128)), true});
  cases.push_back({"window above a tile", documents({450}, 1, 1, windowed(0, 0, 150)), true});
  cases.push_back({"window above the length", documents({90, 130}, 2, 1, windowed(0, 0, 500)),
                   true});
  cases.push_back({"ragged documents, group of 8",
                   documents({1, 5, 64, 65, 2, 130, 3}, 8, 1, windowed(0, 0, 30)), true, 8});
  cases.push_back({"window and sinks", documents({420}, 2, 2, windowed(300, 5, 40)), true});
  cases.push_back({"sinks within the window of the bias",
                   documents({330}, 2, 1, windowed(70, 3, 100)), true});
  // Parts of one document as context parallelism cuts it: several segments read the same keys, the
  // last sees keys of the distant past only.
  AttentionCase c = documents({}, 4, 2, windowed(0, 0, 25));
  c.nq = 210;
  c.nk = 420;
  c.segments = {{0, 60, 0, 160, 100}, {60, 70, 0, 400, 330}, {130, 40, 30, 370, 340},
                {180, 30, 0, 300, 900}};
  cases.push_back({"shared keys", c, true, 8});
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

/// Sums of dout v and of dout out run in other orders in a kernel, so that what cancels in the
/// composite leaves 2^-24 of each behind, which does not average out in dbias, a sum over queries.
constexpr double kFromDelta = 1e-6;

/// Runs both passes on the cases in all modes: the dense formula and, where keys are closed, the same
/// bits whether closed tiles are left out or not.
template <class T, class Passes>
void check_bias_cases(int head_dim, bool all_biases, double absolute, const Passes& passes) {
  const bool plain = std::string(XPU_BUILD) == "plain";
  for (const NamedCase& c : bias_cases(head_dim)) {
    const bool all = plain && all_biases && (c.name == "window below a tile" ||
                                             c.name == "shared keys");
    for (const NamedBias& b : biases(c.shape, all)) {
      CAPTURE(c.name);
      CAPTURE(b.name);
      AttentionInputs in;
      AttentionResults want, composite;
      const std::string what = c.name + ", " + b.name;
      for_each_mode([&] {
        AttentionRun<T> run(c.shape, 1, c.gap, true, true);
        run.set_bias(b.values, true);
        passes(run);
        if (want.out.empty()) {
          in = run.inputs();
          want = reference_attention<Exact>(c.shape, in, true);
          composite = reference_attention<Rounded<T>>(c.shape, in, true);
        }
        check_as_precise(run.out.dense(), want.out, composite.out, absolute, "out of " + what);
        check_as_precise(to_double(run.lse.host()), want.lse, composite.lse, absolute,
                         "lse of " + what);
        check_as_precise(run.dq.dense(), want.dq, composite.dq, absolute, "dq of " + what);
        check_as_precise(run.dk.dense(), want.dk, composite.dk, absolute, "dk of " + what);
        check_as_precise(run.dv.dense(), want.dv, composite.dv, absolute, "dv of " + what);
        check_as_precise(to_double(run.dbias.host()), want.dbias, composite.dbias,
                         absolute + kFromDelta * largest(want.dbias), "dbias of " + what);
        if (b.name == "soft" || !plain) return;
        AttentionRun<T> every(c.shape, 1, c.gap, true, true);
        every.set_bias(b.values, false);
        passes(every);
        CHECK(results_of(run) == results_of(every));
      }, true);
    }
  }
}

}  // namespace lh::test
