#include "optim/muon.h"

#include <Eigen/Eigenvalues>
#include <cmath>

#include "checkpoint/safetensors.h"
#include "optim_support.h"

namespace {

using namespace lh;
using namespace lh::test;

Eigen::MatrixXd as_eigen(const Tensor& t) {
  const auto values = to_doubles(t);
  return Eigen::Map<const Eigen::Matrix<double, -1, -1, Eigen::RowMajor>>(values.data(), t.size(0),
                                                                          t.size(1));
}

/// Singular values by an eigendecomposition of the smaller Gram matrix.
Eigen::VectorXd singular_values(const Tensor& t) {
  const Eigen::MatrixXd x = as_eigen(t);
  const Eigen::MatrixXd gram = x.rows() <= x.cols() ? Eigen::MatrixXd(x * x.transpose())
                                                    : Eigen::MatrixXd(x.transpose() * x);
  return Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd>(gram).eigenvalues().cwiseMax(0).cwiseSqrt();
}

TEST_CASE("keller brings singular values near 1 in five steps and tilde converges to 1") {
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{24, 24}, {10, 40}, {40, 10}, {1, 7}})
    for (const DType dtype : {DType::kF64, DType::kF32}) {
      const Tensor g = random_tensor({rows, cols}, dtype, 5);
      const Eigen::VectorXd start = singular_values(g) / as_eigen(g).norm();
      const Eigen::VectorXd keller = singular_values(newton_schulz(g, "keller", 5));
      const Eigen::VectorXd tilde = singular_values(newton_schulz(g, "tilde", 30));
      for (Eigen::Index i = 0; i < keller.size(); ++i) {
        CHECK(keller[i] < 1.21);
        if (start[i] > 0.01) CHECK(keller[i] > 0.65);
        if (start[i] > 0.001) CHECK(std::abs(tilde[i] - 1) < 1e-4);
      }
    }
}

TEST_CASE("the polynomial acts on singular values and leaves the singular vectors") {
  // U diag(s) V^T with known factors: the result must be U diag(p(p(...s))) V^T.
  const Eigen::MatrixXd u =
      as_eigen(random_tensor({6, 6}, DType::kF64, 1)).householderQr().householderQ();
  const Eigen::MatrixXd v =
      as_eigen(random_tensor({6, 6}, DType::kF64, 2)).householderQr().householderQ();
  Eigen::VectorXd s(6);
  s << 1, 0.8, 0.5, 0.3, 0.1, 0.05;
  const Eigen::MatrixXd g = u * s.asDiagonal() * v.transpose();
  std::vector<double> flat;
  for (int i = 0; i < 6; ++i)
    for (int j = 0; j < 6; ++j) flat.push_back(g(i, j));
  struct Variant {
    const char* name;
    double a, b, c;
    int64_t steps;
  };
  for (const Variant& variant :
       {Variant{"keller", 3.4445, -4.7750, 2.0315, 5}, {"tilde", 2, -1.5, 0.5, 12}}) {
    Eigen::VectorXd p = s / (s.norm() + 1e-7);
    for (int64_t i = 0; i < variant.steps; ++i)
      for (double& x : p) x = variant.a * x + variant.b * x * x * x + variant.c * std::pow(x, 5);
    const Eigen::MatrixXd want = u * p.asDiagonal() * v.transpose();
    const Eigen::MatrixXd got =
        as_eigen(newton_schulz(Tensor::from(flat, {6, 6}), variant.name, variant.steps));
    CHECK((got - want).cwiseAbs().maxCoeff() < 1e-11);
  }
}

TEST_CASE("ten updates equal those of PyTorch within its bfloat16 iterations") {
  for (const char* scaling : {"keller", "moonlight"}) {
    const SafetensorsFile golden(
        fmt::format("{}/tests/golden/optim/muon_{}.safetensors", LH_SOURCE_DIR, scaling));
    ParameterStore store(DType::kF32, 1);
    Parameter& w = store.create("w", {6, 10}, ParameterKind::kMatrix, Init::constant(0));
    set_value(w, golden.read("before"));
    OptimConfig config;
    config.kind = "muon";
    config.learning_rate = 2e-2;
    config.weight_decay = 0.1;
    config.muon.scaling = scaling;
    const auto optimizer = make_optimizer(config, store);
    const Tensor gradients = golden.read("gradients");
    for (int64_t i = 0; i < gradients.size(0); ++i) {
      set_gradient(w, gradients.slice(0, i, i + 1).reshape({6, 10}));
      optimizer->step(1, 1);
    }
    // Each update has elements of about lr * scale / sqrt(6) with bfloat16's relative error.
    const double moved = largest_difference(w.master, golden.read("before"));
    CHECK(moved > 0.02);
    CHECK(largest_difference(w.master, golden.read("after")) < 0.02 * moved);
  }
}

TEST_CASE("scales follow their papers") {
  CHECK(muon_scale("keller", 8, 2) == doctest::Approx(2));
  CHECK(muon_scale("keller", 2, 8) == 1);
  CHECK(muon_scale("moonlight", 2, 100) == doctest::Approx(2));
  CHECK_THROWS_AS(muon_scale("x", 1, 1), ConfigError);
  CHECK_THROWS_AS(newton_schulz(Tensor::zeros({2, 2}, DType::kF32), "x", 1), ConfigError);
}

TEST_CASE("a gradient of zeros updates nothing but the decay") {
  ParameterStore store(DType::kF32, 1);
  Parameter& w = store.create("w", {3, 5}, ParameterKind::kMatrix, Init::constant(2));
  OptimConfig config;
  config.kind = "muon";
  config.learning_rate = 0.5;
  config.weight_decay = 0.1;
  const auto optimizer = make_optimizer(config, store);
  set_gradient(w, Tensor::zeros({3, 5}, DType::kF32));
  optimizer->step(1, 1);
  for (const double value : to_doubles(w.master)) CHECK(value == doctest::Approx(2 * 0.95));
}

TEST_CASE("with kind muon only hidden matrices go to Muon") {
  ParameterStore store(DType::kF32, 1);
  store.create("embed", {8, 4}, ParameterKind::kEmbedding, Init::constant(0));
  store.create("matrix", {4, 4}, ParameterKind::kMatrix, Init::constant(0));
  store.create("norm", {4}, ParameterKind::kNorm, Init::constant(0));
  store.create("head", {8, 4}, ParameterKind::kHead, Init::constant(0));
  OptimConfig config;
  config.kind = "muon";
  std::vector<std::string> names;
  for (const NamedTensor& state : make_optimizer(config, store)->state())
    names.push_back(state.name);
  std::sort(names.begin(), names.end());
  CHECK(names == std::vector<std::string>{"embed.m", "embed.v", "head.m", "head.v",
                                          "matrix.momentum", "norm.m", "norm.v"});
}

}  // namespace
