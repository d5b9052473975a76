#include "optim/adamw.h"

#include <cmath>

#include "checkpoint/safetensors.h"
#include "optim_support.h"

namespace {

using namespace lh;
using namespace lh::test;

OptimConfig settings() {
  OptimConfig config;
  config.learning_rate = 3e-2;
  config.beta1 = 0.9;
  config.beta2 = 0.95;
  config.weight_decay = 0.1;
  return config;
}

TEST_CASE("ten updates in f64 equal those of PyTorch") {
  const SafetensorsFile golden(LH_SOURCE_DIR "/tests/golden/optim/adamw.safetensors");
  ParameterStore store(DType::kF64, 1);
  Parameter& w = store.create("w", {6, 10}, ParameterKind::kMatrix, Init::constant(0));
  set_value(w, golden.read("before"));
  const auto optimizer = make_optimizer(settings(), store);
  const Tensor gradients = golden.read("gradients");
  for (int64_t i = 0; i < gradients.size(0); ++i) {
    set_gradient(w, gradients.slice(0, i, i + 1).reshape({6, 10}));
    optimizer->step(1, 1);
  }
  CHECK(optimizer->steps() == 10);
  CHECK(largest_difference(w.master, golden.read("after")) < 1e-13);
}

/// The paper's algorithm 2, one number at a time.
struct Textbook {
  double w, m = 0, v = 0;
  int t = 0;
  void step(double g, double lr, double decay) {
    ++t;
    m = 0.9 * m + 0.1 * g;
    v = 0.95 * v + 0.05 * g * g;
    w -= lr *
         (m / (1 - std::pow(0.9, t)) / (std::sqrt(v / (1 - std::pow(0.95, t))) + 1e-8) + decay * w);
  }
};

TEST_CASE("f32 and bf16 models follow the textbook in their f32 masters") {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    ParameterStore store(dtype, 1);
    Parameter& w = store.create("w", {37}, ParameterKind::kMatrix, Init::constant(0.5));
    const auto optimizer = make_optimizer(settings(), store);
    std::vector<Textbook> expected(37, Textbook{0.5});
    Philox random(3);
    for (int step = 0; step < 20; ++step) {
      const double factor = step < 5 ? 0.2 * (step + 1) : 1, scale = step == 7 ? 0.25 : 1;
      std::vector<float> values;
      for (Textbook& one : expected) {
        // Short fractions: exact in bfloat16, which carries the gradient there.
        const double g = static_cast<double>(static_cast<int>(random.below(255)) - 127) / 64;
        values.push_back(static_cast<float>(g));
        one.step(g * scale, 3e-2 * factor, 0.1);
      }
      Tensor gradient = Tensor::empty({37}, dtype);
      cpu::copy(Tensor::from(values, {37}), gradient);
      set_gradient(w, gradient);
      optimizer->step(factor, scale);
    }
    const auto got = to_doubles(w.master);
    for (size_t i = 0; i < got.size(); ++i) CHECK(std::abs(got[i] - expected[i].w) < 3e-6);
    if (dtype != DType::kBF16) continue;
    Tensor rounded = Tensor::empty({37}, DType::kBF16);
    cpu::copy(w.master, rounded);
    CHECK(to_doubles(rounded) == to_doubles(w.compute_copy()));
  }
}

TEST_CASE("norms and biases do not decay and a parameter without gradient keeps everything") {
  ParameterStore store(DType::kF32, 1);
  Parameter& norm = store.create("norm", {4}, ParameterKind::kNorm, Init::constant(1));
  Parameter& idle = store.create("idle", {4}, ParameterKind::kMatrix, Init::constant(1));
  OptimConfig config = settings();
  config.weight_decay = 10;
  const auto optimizer = make_optimizer(config, store);
  set_gradient(norm, Tensor::zeros({4}, DType::kF32));
  optimizer->step(1, 1);
  for (const double value : to_doubles(norm.master)) CHECK(value == 1);
  for (const double value : to_doubles(idle.master)) CHECK(value == 1);
  for (const NamedTensor& state : optimizer->state())
    for (const double value : to_doubles(state.tensor)) CHECK(value == 0);
}

TEST_CASE("restored state continues bitwise") {
  const auto make = [](ParameterStore& store) {
    store.create("w", {8, 8}, ParameterKind::kMatrix, Init::normal(0.1));
    return make_optimizer(settings(), store);
  };
  const auto train = [](Parameter& w, Optimizer& optimizer, int from, int to) {
    for (int i = from; i < to; ++i) {
      set_gradient(w, random_tensor({8, 8}, DType::kF32, static_cast<uint64_t>(i)));
      optimizer.step(1, 1);
    }
  };
  ParameterStore whole(DType::kF32, 1), half(DType::kF32, 1), rest(DType::kF32, 2);
  const auto a = make(whole), b = make(half), c = make(rest);
  train(*whole.find("w"), *a, 0, 10);
  train(*half.find("w"), *b, 0, 4);
  set_value(*rest.find("w"), half.find("w")->master);
  const auto from = b->state(), to = c->state();
  for (size_t i = 0; i < from.size(); ++i) {
    CHECK(from[i].name == to[i].name);
    Tensor into = to[i].tensor;
    cpu::copy(from[i].tensor, into);
  }
  c->set_steps(b->steps());
  train(*rest.find("w"), *c, 4, 10);
  CHECK(to_doubles(rest.find("w")->master) == to_doubles(whole.find("w")->master));
}

}  // namespace
