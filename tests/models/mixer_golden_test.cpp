// Decoders whose mixers no library has against their definitions in PyTorch and fp64
// (tests/golden/mixers/README.md): logits, loss and every parameter's gradient.
#include "models/golden.h"
#include "ops/attention_definition.h"

namespace {

using namespace lh;
using namespace lh::test;

TEST_CASE("logits loss and gradients of each mixer equal its definition in fp64") {
  for (const std::string& mixer : kMixers) check_mixer(mixer, DType::kF64, 1e-11);
}

TEST_CASE("logits loss and gradients of each mixer equal its definition in f32") {
  for (const std::string& mixer : kMixers) check_mixer(mixer, DType::kF32, 2e-5);
}

TEST_CASE("the goldens are those of attention's definitions too") {
  choose_definitions(true);
  for (const std::string& mixer : kMixers) check_mixer(mixer, DType::kF64, 1e-11);
  for (const std::string& family : kFamilies)
    check_family(family, "expected.safetensors", DType::kF32, 2e-5);
  choose_definitions(false);
}

TEST_CASE("recomputing blocks changes no mixer's gradients") {
  for (const std::string mixer : {"parallax", "sp_kv"}) check_mixer(mixer, DType::kF64, 1e-11, true);
}

}  // namespace
