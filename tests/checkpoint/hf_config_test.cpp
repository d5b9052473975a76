#include "checkpoint/hf_config.h"

#include <doctest/doctest.h>

#include "support/folder.h"

namespace {

using namespace lh;
using namespace lh::test;

std::string refusal(const Folder& folder, const std::string& json) {
  put(folder / "config.json", json);
  return error_of<IoError>([&] { read_hf_config(folder / "config.json"); });
}

TEST_CASE("wrong configs are refused with file and key") {
  const Folder folder;
  CHECK(contains(refusal(folder, "nope"), "expected a JSON object"));
  CHECK(contains(refusal(folder, "{}"), "'model_type' is missing"));
  CHECK(contains(refusal(folder, R"({"model_type": "gpt2"})"), "expected one of llama"));
  CHECK(contains(refusal(folder, R"({"model_type": "llama", "hidden_act": "gelu"})"),
                 "expected silu"));
  CHECK(contains(refusal(folder, R"({"model_type": "llama"})"), "'vocab_size' is missing"));
  CHECK(contains(refusal(folder, R"({"model_type": "llama", "vocab_size": "x"})"),
                 "'vocab_size' has an unexpected value"));
}

}  // namespace
