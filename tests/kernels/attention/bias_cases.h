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

/// One key in `of` is open, scattered.
inline bool scattered(int j, int h, int of) {
  return (static_cast<unsigned>(j * 31 + h) * 2654435761u >> 16) % static_cast<unsigned>(of) == 0;
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
      // Runs that begin and end within tiles, and cover some whole; between them a third is open.
      {"hard", closing_bias(c, 1, [](int j, int h) {
         return (j + 50 * h) / 150 % 2 == 0 || !scattered(j, h, 3);
       })},
  };
  // Copies of open keys go round the ring of stages twice, and the last tile of them is cut.
  if (c.nk > 1000) some.push_back({"few closed", closing_bias(c, 1, [](int j, int h) { return scattered(j, h, 16); })});
  if (!all) return some;
  for (NamedBias& b : std::vector<NamedBias>{
           {"all open", closing_bias(c, 0, [](int, int) { return false; })},
           {"all closed", closing_bias(c, 0, [](int, int) { return true; })},
           {"one in 20 open", closing_bias(c, 0, [](int j, int h) { return !scattered(j, h, 20); })},
           {"one kv head closed", closing_bias(c, 1, [](int j, int h) {
              return h == 0 || !scattered(j, h, 2);
            })}}) {
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
  cases.push_back({"window below a tile", documents({260, 61}, 1, 1, windowed(0, 0, 20)), true, 8});
  // Parts of one document as context parallelism cuts it: several segments read the same keys, the
  // last sees keys of the distant past only.
  AttentionCase c = documents({}, 4, 2, windowed(0, 0, 25));
  c.nq = 125;
  c.nk = 330;
  c.segments = {{0, 40, 0, 130, 90}, {40, 40, 0, 310, 270}, {80, 20, 30, 280, 260},
                {100, 25, 0, 200, 900}};
  cases.push_back({"shared keys", c, true, 8});
  // A chunk of queries after many keys, so that they go round the ring of stages twice.
  c = documents({}, 1, 1, windowed(0, 0, 150));
  c.nq = 35;
  c.nk = 1035;
  c.segments = {{0, 35, 0, 1035, 1000}};
  cases.push_back({"long past, window above a tile", c, true});
  if (!all) return cases;
  cases.push_back({"no window of the bias", documents({150}, 1, 1, {}), true});
  cases.push_back({"window of a tile", documents({290}, 1, 1, windowed(0, 0, 128)), true});
  cases.push_back({"window above the length", documents({70, 90}, 2, 1, windowed(0, 0, 500)),
                   true});
  cases.push_back({"ragged documents, group of 8",
                   documents({1, 5, 64, 65, 2, 3}, 8, 1, windowed(0, 0, 30)), true, 8});
  cases.push_back({"window and sinks", documents({300}, 1, 1, windowed(200, 5, 40)), true});
  cases.push_back({"sinks within the window of the bias",
                   documents({200}, 1, 1, windowed(70, 3, 100)), true});
  c = documents({200}, 2, 1, windowed(0, 0, 30));
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

/// Runs both passes on the cases in all modes: the dense formula, the same bits in every mode, and dk,
/// dv and dbias with the same bits whether closed tiles are left out or not. dbias is fp32 in every kernel
/// and is held to that, from exact stats: a rounded out moves delta and with it dbias, by another draw than
/// the composite's, whose largest error does not bound it.
template <class T, class Forward, class Backward>
void check_bias_cases(int head_dim, bool all, double absolute, const Forward& forward,
                      const Backward& backward) {
  const bool plain = kernel_build() == "plain";
  for (const NamedCase& c : bias_cases(head_dim, all)) {
    const bool chosen = c.name == "window below a tile" || c.name == "shared keys";
    for (const NamedBias& b : biases(c.shape, all && plain && chosen)) {
      const bool soft = b.name == "soft";
      if (soft && !plain && !chosen) continue;  // the loads of attention without a bias
      CAPTURE(c.name);
      CAPTURE(b.name);
      AttentionInputs in;
      AttentionResults want, composite, wide;
      BiasResults first;
      const std::string what = c.name + ", " + b.name;
      for_each_mode([&] {
        AttentionRun<T> run(c.shape, 1, c.gap, true, true);
        run.set_bias(b.values, !soft);
        const bool is_first = want.out.empty();
        if (is_first) {
          in = run.inputs();
          want = reference_attention<Exact>(c.shape, in, true);
          composite = reference_attention<Rounded<T>>(c.shape, in, true);
        }
        forward(run);
        backward(run);
        if (!is_first) {
          CHECK(results_of(run) == first);
          return;
        }
        first = results_of(run);
        check_as_precise(run.out.dense(), want.out, composite.out, absolute, "out of " + what);
        check_as_precise(to_double(run.lse.host()), want.lse, composite.lse, absolute,
                         "lse of " + what);
        check_as_precise(run.dq.dense(), want.dq, composite.dq, absolute, "dq of " + what);
        check_as_precise(run.dk.dense(), want.dk, composite.dk, absolute, "dk of " + what);
        check_as_precise(run.dv.dense(), want.dv, composite.dv, absolute, "dv of " + what);
        if (!plain) return;
        wide = reference_attention<Rounded<float>>(c.shape, in, true);
        run.set_stats(exact_stats(c.shape, in, want));
        backward(run);
        check_as_precise(to_double(run.dbias.host()), want.dbias, wide.dbias,
                         absolute + kFromStats * largest(want.dbias), "dbias of " + what);
        if (soft) return;
        const BiasResults left_out = results_of(run);
        run.set_bias(b.values, false);
        backward(run);
        const BiasResults every = results_of(run);
        CHECK(left_out.dk == every.dk);
        CHECK(left_out.dv == every.dv);
        CHECK(left_out.dbias == every.dbias);
      }, true);
    }
  }
}

/// Queries after a long past whose closed keys are NaN: neither pass over queries reads them.
template <class T, class Forward, class Backward>
void check_closed_keys_are_not_read(int head_dim, double absolute, const Forward& forward,
                                    const Backward& backward) {
  AttentionCase c = packed({}, 4, 2, head_dim, head_dim, windowed(0, 0, 25));
  c.nq = 30;
  c.nk = 230;
  c.segments = {{0, 30, 0, 230, 200}};
  const int remote_end = 200 - 25 + 1;
  for (const int of : {3, 1000}) {
    CAPTURE(of);
    const std::vector<float> values =
        closing_bias(c, 1, [&](int j, int h) { return !scattered(j, h, of); });
    for_each_mode([&] {
      AttentionRun<T> run(c, 1, 8, true, true);
      run.set_bias(values, true);
      const AttentionInputs in = run.inputs();
      const AttentionResults want = reference_attention<Exact>(c, in, true);
      const AttentionResults composite = reference_attention<Rounded<T>>(c, in, true);
      run.poison_closed(values, remote_end);
      run.set_bias(values, true);
      forward(run);
      backward(run);
      check_as_precise(run.out.dense(), want.out, composite.out, absolute, "out");
      check_as_precise(to_double(run.lse.host()), want.lse, composite.lse, absolute, "lse");
      check_as_precise(run.dq.dense(), want.dq, composite.dq, absolute, "dq");
    }, true);
  }
}

}  // namespace lh::test
