#include "checkpoint/training_state.h"

#include <doctest/doctest.h>
#include <hdf5.h>

#include <cstring>

#include "base/file.h"
#include "base/philox.h"
#include "storage/hdf5_lock.h"
#include "support/folder.h"

namespace {

using namespace lh;
using namespace lh::test;

const DType kAll[] = {DType::kF32, DType::kBF16, DType::kF64, DType::kI32, DType::kI64, DType::kU8};

Tensor random_bytes(const Shape& shape, DType dtype, uint64_t seed) {
  Tensor tensor = Tensor::empty(shape, dtype);
  Philox random(seed);
  for (size_t i = 0; i < tensor.bytes(); ++i)
    tensor.raw()[i] = static_cast<char>(random.next_u32());
  return tensor;
}

std::vector<NamedTensor> all_dtypes() {
  std::vector<NamedTensor> tensors;
  for (const DType dtype : kAll) {
    const auto seed = static_cast<uint64_t>(tensors.size());
    tensors.push_back(
        {fmt::format("weight.layer.{}", dtype_name(dtype)), random_bytes({3, 5, 7}, dtype, seed)});
  }
  tensors.push_back({"optimizer.one", random_bytes({1}, DType::kF32, 9)});
  return tensors;
}

std::vector<NamedTensor> zeros_like(const std::vector<NamedTensor>& tensors) {
  std::vector<NamedTensor> result;
  for (const NamedTensor& named : tensors)
    result.push_back({named.name, Tensor::zeros(named.tensor.shape(), named.tensor.dtype())});
  return result;
}

bool same(const std::vector<NamedTensor>& a, const std::vector<NamedTensor>& b) {
  for (size_t i = 0; i < a.size(); ++i)
    if (std::memcmp(a[i].tensor.raw(), b[i].tensor.raw(), a[i].tensor.bytes()) != 0) return false;
  return true;
}

bool zero(const std::vector<NamedTensor>& tensors) {
  return same(tensors, zeros_like(tensors));
}

const std::map<std::string, std::string> kMeta = {
    {"step", "12"}, {"text", "line\n\"quoted\" \xc3\xa9"}, {"empty", ""}};

TEST_CASE("every dtype and any text comes back bit for bit and equal states are equal files") {
  const Folder folder;
  const auto tensors = all_dtypes();
  write_training_state(folder / "a.h5", kMeta, tensors);
  write_training_state(folder / "b.h5", kMeta, tensors);
  CHECK(read_file(folder / "a.h5") == read_file(folder / "b.h5"));
  const TrainingStateFile file(folder / "a.h5");
  CHECK(file.meta() == kMeta);
  CHECK(file.names().size() == tensors.size());
  const auto back = zeros_like(tensors);
  file.restore(back);
  CHECK(same(back, tensors));
}

TEST_CASE("the file is plain HDF5 that the library alone reads") {
  const Folder folder;
  const Tensor tensor = Tensor::from(std::vector<float>{1, 2, 3, 4, 5, 6}, {2, 3});
  write_training_state(folder / "s.h5", kMeta, {{"weight.x", tensor}});
  const std::lock_guard lock(hdf5_mutex());
  const hid_t file = H5Fopen((folder / "s.h5").c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  REQUIRE(file >= 0);
  const hid_t data = H5Dopen2(file, "tensors/weight.x", H5P_DEFAULT);
  REQUIRE(data >= 0);
  float values[6] = {};
  CHECK(H5Dread(data, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
  for (int i = 0; i < 6; ++i) CHECK(values[i] == static_cast<float>(i + 1));
  H5Dclose(data);
  H5Fclose(file);
}

TEST_CASE("a state of thousands of tensors with long names is laid out and read") {
  const Folder folder;
  std::vector<NamedTensor> tensors;
  for (int i = 0; i < 3000; ++i)
    tensors.push_back({fmt::format("optimizer.second_moment.model.layers.{}.self_attn.{}", i,
                                   std::string(static_cast<size_t>(i % 60), 'n')),
                       random_bytes({1 + i % 5, 3}, DType::kF32, static_cast<uint64_t>(i))});
  write_training_state(folder / "s.h5", kMeta, tensors);
  const auto back = zeros_like(tensors);
  TrainingStateFile(folder / "s.h5").restore(back);
  CHECK(same(back, tensors));
}

TEST_CASE("all misfits are reported at once and nothing is changed") {
  const Folder folder;
  write_training_state(folder / "s.h5", kMeta, all_dtypes());
  const TrainingStateFile file(folder / "s.h5");
  const std::vector<NamedTensor> targets = {
      {"optimizer.one", Tensor::zeros({1}, DType::kF32)},
      {"weight.layer.f32", Tensor::zeros({3, 5}, DType::kF32)},
      {"weight.layer.bf16", Tensor::zeros({3, 5, 7}, DType::kF32)},
      {"weight.gone", Tensor::zeros({2}, DType::kF32)}};
  const std::string error = error_of<IoError>([&] { file.restore(targets); });
  INFO(error);
  CHECK(contains(error, "weight.layer.f32: expected"));
  CHECK(contains(error, "weight.layer.bf16: expected"));
  CHECK(contains(error, "weight.gone: missing"));
  CHECK(zero(targets));
}

TEST_CASE("cuts and flipped bits are found before anything is restored") {
  const Folder folder;
  const auto tensors = all_dtypes();
  write_training_state(folder / "s.h5", kMeta, tensors);
  const std::string whole = read_file(folder / "s.h5");
  const auto refused = [&](const std::string& bytes) {
    put(folder / "bad.h5", bytes);
    const auto targets = zeros_like(tensors);
    const std::string error =
        error_of<IoError>([&] { TrainingStateFile(folder / "bad.h5").restore(targets); });
    return contains(error, "bad.h5") && zero(targets);
  };
  for (size_t size = 0; size < whole.size(); size += 1 + size / 8)
    CHECK_MESSAGE(refused(whole.substr(0, size)), size);
  CHECK(refused(whole.substr(0, whole.size() - 1)));
  CHECK(refused(whole + "x"));
  Philox random(3);
  int harmless = 0;
  for (int i = 0; i < 4000; ++i) {
    std::string bytes = whole;
    const size_t at = random.below(static_cast<uint32_t>(bytes.size()));
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << random.below(8)));
    if (refused(bytes)) continue;
    // Padding between tensors belongs to none: then everything comes back as it was.
    const auto back = zeros_like(tensors);
    TrainingStateFile(folder / "bad.h5").restore(back);
    CHECK_MESSAGE(same(back, tensors), at);
    ++harmless;
  }
  CHECK(harmless < 400);
}

TEST_CASE("foreign files are refused with a reason") {
  const Folder folder;
  put(folder / "text", "hello");
  put(folder / "empty", "");
  CHECK(contains(error_of<IoError>([&] { TrainingStateFile(folder / "text"); }),
                 "expected 'longhand training state'"));
  CHECK(error_of<IoError>([&] { TrainingStateFile(folder / "empty"); }) != "");
  CHECK(contains(error_of<IoError>([&] { TrainingStateFile(folder / "none"); }), "cannot open"));
  CHECK(error_of<IoError>([&] { TrainingStateFile(folder.path()); }) != "");
}

TEST_CASE("a disk that fills up at any point is an error that names the file") {
  const Folder folder;
  const auto tensors = all_dtypes();
  write_training_state(folder / "s.h5", kMeta, tensors);
  const size_t size = read_file(folder / "s.h5").size();
  for (size_t room = 0; room < size; room += 1 + size / 40) {
    const FileLimit limit(room);
    const std::string error =
        error_of<IoError>([&] { write_training_state(folder / "full.h5", kMeta, tensors); });
    CHECK(contains(error, "full.h5"));
  }
}

}  // namespace
