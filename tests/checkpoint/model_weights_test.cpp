// Weights of a model on disk: one file or shards, tied heads, and everything that does not fit at once.
#include "checkpoint/model_weights.h"

#include <doctest/doctest.h>

#include "support/folder.h"

namespace {

using namespace lh;
using namespace lh::test;

constexpr const char* kTable = "model.embed_tokens.weight";

Tensor filled(const Shape& shape, float value) {
  Tensor t = Tensor::empty(shape, DType::kF32);
  for (float& entry : t.span<float>()) entry = value;
  return t;
}

std::string misfit(const Folder& folder, const std::vector<NamedTensor>& model,
                   const WeightsTolerance& tolerance = {}) {
  return error_of<IoError>([&] { ModelWeights(folder.path()).check(model, tolerance); });
}

TEST_CASE("shards that an index lists are one model, files beside them are not") {
  const Folder folder;
  write_safetensors(folder / "a.safetensors", {{"x", filled({2}, 1)}});
  write_safetensors(folder / "b.safetensors", {{"y", filled({3}, 2)}});
  write_safetensors(folder / "other.safetensors", {{"z", filled({1}, 3)}});
  CHECK(!ModelWeights::are_in(folder.path()));
  put(folder / "model.safetensors.index.json",
      R"({"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}})");
  CHECK(ModelWeights::are_in(folder.path()));
  const Tensor x = filled({2}, 0), y = filled({3}, 0);
  const ModelWeights weights(folder.path());
  weights.check({{"x", x}, {"y", y}});
  weights.read({"x", x});
  weights.read({"y", y});
  CHECK(x.span<float>()[1] == 1);
  CHECK(y.span<float>()[2] == 2);

  put(folder / "model.safetensors.index.json", R"({"weight_map": {"x": "../a.safetensors"}})");
  CHECK(contains(error_of<IoError>([&] { ModelWeights(folder.path()); }), "a file beside it"));
  put(folder / "model.safetensors.index.json", "[]");
  CHECK(contains(error_of<IoError>([&] { ModelWeights(folder.path()); }), "weight_map"));
  write_safetensors(folder / "c.safetensors", {{"x", filled({2}, 1)}});
  put(folder / "model.safetensors.index.json",
      R"({"weight_map": {"x": "a.safetensors", "y": "c.safetensors"}})");
  CHECK(contains(error_of<IoError>([&] { ModelWeights(folder.path()); }), "another shard too"));
}

TEST_CASE("everything that does not fit is in one error, with what was allowed left out") {
  const Folder folder;
  write_safetensors(folder / "model.safetensors",
                    {{"good", filled({2}, 1)},
                     {"wide", filled({2, 3}, 1)},
                     {"ids", Tensor::zeros({2}, DType::kI32)},
                     {"extra", filled({1}, 1)},
                     {"model.layers.0.self_attn.rotary_emb.inv_freq", filled({4}, 1)}});
  const std::vector<NamedTensor> model = {{"good", filled({2}, 0)},
                                          {"wide", filled({3, 3}, 0)},
                                          {"ids", filled({2}, 0)},
                                          {"lacking", filled({5}, 0)}};
  const std::string all =
      misfit(folder, model, {.missing_advice = "; say fresh", .extra_advice = "; say ignore"});
  CHECK(contains(all, "\n  wide: expected f32[3, 3], got F32[2, 3]"));
  CHECK(contains(all, "\n  ids: expected f32[2], got I32[2]"));
  CHECK(contains(all, "\n  lacking: expected f32[5], got none; say fresh"));
  CHECK(contains(all, "\n  extra: expected none, as the model has no such parameter, got F32[1]; say "
                      "ignore"));
  CHECK(!contains(all, "good"));
  CHECK(!contains(all, "inv_freq"));
  const auto is_not_good = [](const std::string& name) { return name != "good"; };
  CHECK(misfit(folder, model, {.not_wanted = is_not_good, .not_needed = is_not_good}) == "");
}

TEST_CASE("a tied head may be left out or stored again, but not be another") {
  const std::vector<NamedTensor> tied = {{kTable, filled({4, 2}, 0)}};
  const Tensor head = filled({4, 2}, 0);
  const std::vector<NamedTensor> untied = {{kTable, filled({4, 2}, 0)}, {"lm_head.weight", head}};
  const Folder without, again, other;
  write_safetensors(without / "model.safetensors", {{kTable, filled({4, 2}, 5)}});
  write_safetensors(again / "model.safetensors",
                    {{kTable, filled({4, 2}, 5)}, {"lm_head.weight", filled({4, 2}, 5)}});
  write_safetensors(other / "model.safetensors",
                    {{kTable, filled({4, 2}, 5)}, {"lm_head.weight", filled({4, 2}, 6)}});
  CHECK(misfit(without, tied) == "");
  CHECK(misfit(again, tied) == "");
  CHECK(contains(misfit(other, tied), "lm_head.weight: expected none"));
  CHECK(misfit(without, untied) == "");
  ModelWeights(without.path()).read({"lm_head.weight", head});
  CHECK(head.span<float>()[7] == 5);
  ModelWeights(other.path()).read({"lm_head.weight", head});
  CHECK(head.span<float>()[7] == 6);
}

}  // namespace
