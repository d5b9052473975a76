// Owners of a shared optimizer: every element has one, matrices of Muon stay whole, and the load is even.
#include "optim/shards.h"

#include <numeric>

#include "optim_support.h"

namespace {

using namespace lh;
using namespace lh::test;

/// A decoder's shapes in small: many matrices, a large embedding, norms.
void fill(ParameterStore& store, int layers = 6) {
  store.create("embed", {503, 48}, ParameterKind::kEmbedding, Init::constant(0));
  for (int i = 0; i < layers; ++i) {
    const std::string at = fmt::format("layer{}.", i);
    store.create(at + "q", {48, 48}, ParameterKind::kMatrix, Init::constant(0));
    store.create(at + "up", {160, 48}, ParameterKind::kMatrix, Init::constant(0));
    store.create(at + "down", {48, 160}, ParameterKind::kMatrix, Init::constant(0));
    store.create(at + "norm", {48}, ParameterKind::kNorm, Init::constant(0));
  }
  store.create("odd", {7}, ParameterKind::kBias, Init::constant(0));
}

OptimConfig config_of(const std::string& kind) {
  OptimConfig config;
  config.kind = kind;
  return config;
}

TEST_CASE("every element has exactly one owner and matrices of Muon stay whole") {
  ParameterStore store(DType::kF32, 1);
  fill(store);
  for (const std::string kind : {"adamw", "muon"})
    for (const int owners : {1, 2, 3, 4, 7, 64}) {
      const Shards shards(config_of(kind), store, owners);
      for (size_t i = 0; i < store.all().size(); ++i) {
        const Parameter& parameter = *store.all()[i];
        int64_t at = 0, whole = 0;
        for (int owner = 0; owner < owners; ++owner) {
          const ShardPart part = shards.part(i, owner);
          CHECK(part.begin == at);
          CHECK(part.end >= part.begin);
          if (part.count() > 0) CHECK(part.begin % 4 == 0);
          at = part.end;
          whole += part.count() == parameter.numel() ? 1 : 0;
          CHECK(shards.counts(i)[static_cast<size_t>(owner)] == part.count());
        }
        CHECK(at == parameter.numel());
        if (kind == "muon" && parameter.kind == ParameterKind::kMatrix) CHECK(whole == 1);
      }
    }
}

TEST_CASE("owners hold even parts of the state and Muon's work is spread") {
  ParameterStore store(DType::kF32, 1);
  fill(store);
  for (const std::string kind : {"adamw", "muon"})
    for (const int owners : {1, 2, 3, 4}) {
      CAPTURE(kind);
      CAPTURE(owners);
      std::vector<double> elements, matrices;
      for (int owner = 0; owner < owners; ++owner) {
        const auto optimizer = make_optimizer(config_of(kind), store, {owner, owners});
        elements.push_back(0);
        matrices.push_back(0);
        for (const StateTensor& state : optimizer->state()) {
          elements.back() += static_cast<double>(state.tensor.numel());
          if (state.name.ends_with("up.momentum") || state.name.ends_with("down.momentum"))
            matrices.back() += state.tensor.numel() > 0 ? 1 : 0;
        }
      }
      const double all = std::accumulate(elements.begin(), elements.end(), 0.0);
      for (const double one : elements) CHECK(one == doctest::Approx(all / owners).epsilon(0.02));
      if (kind == "muon")  // twelve of one cost
        for (const double one : matrices) CHECK(one == 12 / owners);
    }
}

TEST_CASE("frozen parameters have no state and a pattern decides who is cut") {
  ParameterStore store(DType::kF32, 1);
  fill(store, 1);
  OptimConfig config = config_of("muon");
  for (const char* pattern : {"layer0.q", "embed"}) {
    config.groups.emplace_back();
    config.groups.back().pattern = pattern;
    config.groups.back().freeze = true;
  }
  const auto is_frozen = [&](size_t index) {
    return store.all()[index]->name == "layer0.q" || store.all()[index]->name == "embed";
  };
  for (const StateTensor& state : make_optimizer(config, store, {1, 2})->state())
    CHECK(!is_frozen(state.parameter));
  for (size_t i = 0; i < store.all().size(); ++i)
    CHECK(store.all()[i]->variable.requires_grad() == !is_frozen(i));
}

TEST_CASE("owners together make the update that one makes alone") {
  for (const std::string kind : {"adamw", "muon"})
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF64}) {
      ParameterStore whole(dtype, 1);
      fill(whole, 2);
      OptimConfig config = config_of(kind);
      config.learning_rate = 0.01;
      const auto alone = make_optimizer(config, whole);
      struct Owner {
        std::unique_ptr<ParameterStore> store;
        std::unique_ptr<Optimizer> optimizer;
      };
      std::vector<Owner> owners;
      for (int owner = 0; owner < 3; ++owner) {
        auto store = std::make_unique<ParameterStore>(dtype, 1);
        fill(*store, 2);
        auto optimizer = make_optimizer(config, *store, {owner, 3});
        owners.push_back({std::move(store), std::move(optimizer)});
      }
      for (int step = 0; step < 4; ++step) {
        for (size_t i = 0; i < whole.all().size(); ++i) {
          const auto seed = static_cast<uint64_t>(100 * step) + i;
          const Tensor gradient =
              random_tensor(whole.all()[i]->master.shape(), dtype, seed);
          set_gradient(*whole.all()[i], gradient);
          for (const Owner& owner : owners) set_gradient(*owner.store->all()[i], gradient);
        }
        alone->step(1, 0.5);
        for (const Owner& owner : owners) owner.optimizer->step(1, 0.5);
      }
      for (size_t i = 0; i < whole.all().size(); ++i)
        for (int owner = 0; owner < 3; ++owner) {
          const Optimizer& optimizer = *owners[static_cast<size_t>(owner)].optimizer;
          const Parameter& own = *owners[static_cast<size_t>(owner)].store->all()[i];
          const Parameter& one = *whole.all()[i];
          const ShardPart part = optimizer.shards().part(i, owner);
          // A master beside a compute copy is this part alone.
          const Tensor master = own.has_whole_master() ? part_of(own.master, part) : own.master;
          CHECK(to_doubles(master) == to_doubles(part_of(one.master, part)));
          CHECK(to_doubles(part_of(own.variable.value(), part)) ==
                to_doubles(part_of(one.variable.value(), part)));
        }
    }
}

}  // namespace
