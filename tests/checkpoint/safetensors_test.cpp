#include "checkpoint/safetensors.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

#include "base/file.h"
#include "support/folder.h"

namespace {

using namespace lh;
using namespace lh::test;

std::string with_header(const std::string& header, size_t data_bytes) {
  const uint64_t length = header.size();
  std::string file(8, '\0');
  std::memcpy(file.data(), &length, 8);
  return file + header + std::string(data_bytes, 'x');
}

std::string refusal(const Folder& folder, const std::string& content) {
  put(folder / "f.safetensors", content);
  return error_of<IoError>([&] { SafetensorsFile(folder / "f.safetensors"); });
}

TEST_CASE("a file of the reference library is read value by value") {
  // scripts/make_safetensors_golden.py: x[i] = (i - 7) / 3 in every dtype.
  const SafetensorsFile file(LH_SOURCE_DIR "/tests/golden/checkpoint/reference.safetensors");
  CHECK(file.metadata().at("made by") == "safetensors");
  for (const char* name : {"f32", "f64", "f16", "bf16"}) {
    const Tensor tensor = file.read(name);
    CHECK(tensor.shape() == Shape({2, 3, 4}));
    for (int64_t i = 0; i < 24; ++i) {
      const double want = static_cast<double>(i - 7) / 3;
      const double got =
          tensor.dtype() == DType::kF64    ? tensor.span<double>()[static_cast<size_t>(i)]
          : tensor.dtype() == DType::kBF16 ? static_cast<float>(tensor.data<bf16>()[i])
                                           : tensor.span<float>()[static_cast<size_t>(i)];
      const std::string kind = name;
      const double unit = kind == "bf16"  ? 0x1p-8
                          : kind == "f16" ? 0x1p-11
                          : kind == "f32" ? 0x1p-24
                                          : 0;
      CHECK(std::abs(got - want) <= unit * std::abs(want));
    }
  }
  for (int64_t i = 0; i < 24; ++i) {
    CHECK(file.read("i64").data<int64_t>()[i] == i - 7);
    CHECK(file.read("i32").data<int32_t>()[i] == i - 7);
    CHECK(file.read("u8").data<uint8_t>()[i] == i);
  }
  // Halves at the ends of their range.
  const Tensor ends = file.read("f16.ends");
  const auto values = ends.span<float>();
  CHECK(values[0] == 65504.0f);
  CHECK(values[1] == 0x1p-24f);
  CHECK(std::isinf(values[2]));
  CHECK(std::isnan(values[3]));
  CHECK((values[4] == 0 && std::signbit(values[4])));
}

TEST_CASE("what is written is read and its data is aligned") {
  const Folder folder;
  const Tensor x = Tensor::from(std::vector<float>{1, 2, 3}, {3});
  write_safetensors(folder / "w.safetensors", {{"b.weight", x}, {"a", x}}, {{"format", "pt"}});
  const SafetensorsFile file(folder / "w.safetensors");
  CHECK(file.names() == std::vector<std::string>{"a", "b.weight"});
  CHECK(file.metadata().at("format") == "pt");
  const Tensor a = file.read("a");
  CHECK(std::memcmp(a.raw(), x.raw(), 12) == 0);
  uint64_t length = 0;
  std::memcpy(&length, read_file(folder / "w.safetensors").data(), 8);
  CHECK((8 + length) % 8 == 0);
  CHECK(folder.names() == std::vector<std::string>{"w.safetensors"});
}

TEST_CASE("reading into a tensor converts dtypes and refuses another shape") {
  const Folder folder;
  Tensor half = Tensor::empty({2}, DType::kBF16);
  half.data<bf16>()[0] = bf16(1.5f);
  half.data<bf16>()[1] = bf16(-2.0f);
  write_safetensors(folder / "w.safetensors", {{"model.norm.weight", half}});
  const SafetensorsFile file(folder / "w.safetensors");
  CHECK(file.describe("model.norm.weight") == "BF16[2]");
  Tensor wide = Tensor::zeros({2}, DType::kF32);
  file.read_into("model.norm.weight", wide);
  CHECK(wide.span<float>()[0] == 1.5f);
  CHECK(wide.span<float>()[1] == -2.0f);
  CHECK_THROWS_AS(file.read_into("model.norm.weight", Tensor::zeros({3}, DType::kF32)), Error);
  CHECK(contains(error_of<IoError>([&] { file.read_into("model.norm.wieght", wide); }),
                 "did you mean 'model.norm.weight'"));
}

TEST_CASE("every way a header can lie is refused with its reason") {
  const Folder folder;
  const auto tensor = [](const std::string& fields) { return "{\"x\":{" + fields + "}}"; };
  struct Case {
    std::string header;
    size_t data;
    const char* reason;
  };
  for (const Case& c : std::vector<Case>{
           {"{", 0, "not JSON"},
           {"[]", 0, "not a JSON object"},
           {std::string(5000, '['), 0, "not JSON"},
           {"{\"__metadata__\":3}", 0, "__metadata__"},
           {tensor("\"dtype\":\"F32\""), 4, "expected dtype, shape and two data_offsets"},
           {tensor("\"dtype\":\"F99\",\"shape\":[1],\"data_offsets\":[0,4]"), 4,
            "unsupported dtype 'F99'"},
           {tensor("\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]"), 4, "non-negative"},
           {tensor("\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]"), 4, "non-negative"},
           {tensor("\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,4]"), 4,
            "more bytes than the file has"},
           {tensor("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]"), 8, "needs"},
           {tensor("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]"), 4, "truncated"},
           {tensor("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]"), 4, "lie outside"},
           {tensor("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]"), 8,
            "belong to no tensor"},
           {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
            "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[2,6]}}",
            6, "overlap"},
       }) {
    const std::string error = refusal(folder, with_header(c.header, c.data));
    CHECK_MESSAGE(contains(error, c.reason), c.header.substr(0, 80), " -> ", error);
    CHECK(contains(error, "f.safetensors"));
  }
  CHECK(contains(refusal(folder, "1234567"), "shorter than its length field"));
  CHECK(contains(refusal(folder, std::string(8, '\xff')), "its header should have"));
}

TEST_CASE("a cut file never opens") {
  const Folder folder;
  write_safetensors(folder / "w", {{"x", Tensor::zeros({50}, DType::kF32)}});
  const std::string whole = read_file(folder / "w");
  for (size_t size = 0; size < whole.size(); ++size)
    CHECK(refusal(folder, whole.substr(0, size)) != "");
}

TEST_CASE("a full disk leaves the earlier file") {
  const Folder folder;
  write_safetensors(folder / "w", {{"x", Tensor::zeros({50}, DType::kF32)}});
  const std::string before = read_file(folder / "w");
  {
    const FileLimit limit(100);
    CHECK(error_of<IoError>([&] {
            write_safetensors(folder / "w", {{"x", Tensor::zeros({500}, DType::kF32)}});
          }) != "");
  }
  CHECK(read_file(folder / "w") == before);
  CHECK(folder.names() == std::vector<std::string>{"w"});
}

}  // namespace
