// libFuzzer target: the files of a checkpoint. The first byte chooses between
//  0 the rest as a safetensors file,
//  1 the rest as the header of a safetensors file with some data behind it,
//  2 the rest as a training state,
//  3 a well-formed training state in which the rest of the input changes bytes.
// A file is read, or refused with lh::Error; of a changed state nothing may be restored.
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>

#include "base/error.h"
#include "base/file.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/training_state.h"

namespace {

using namespace lh;

void require(bool ok) {
  if (!ok) __builtin_trap();
}

std::filesystem::path fuzz_path(const char* name) {
  const bool memory = std::filesystem::is_directory("/dev/shm");
  return (memory ? std::filesystem::path("/dev/shm") : std::filesystem::temp_directory_path()) /
         ("longhand-fuzz-" + std::to_string(::getpid()) + name);
}

void put(const std::filesystem::path& path, std::string_view content) {
  RawFile file = RawFile::create(path);
  file.write_at(0, content.data(), static_cast<int64_t>(content.size()));
}

void read_safetensors(const std::filesystem::path& path) {
  const SafetensorsFile file(path);
  for (const std::string& name : file.names()) {
    const Tensor tensor = file.read(name);
    require(tensor.shape() == file.shape(name));
  }
}

std::vector<NamedTensor> tensors() {
  return {{"weight.a", Tensor::zeros({3, 4}, DType::kF32)},
          {"weight.b", Tensor::zeros({5}, DType::kBF16)}};
}

void read_changed_state(const std::filesystem::path& path, const uint8_t* data, size_t size) {
  static const std::string whole = [&] {
    write_training_state(path, {{"step", "3"}}, tensors());
    return read_file(path);
  }();
  std::string bytes = whole;
  for (; size >= 4; data += 4, size -= 4) {
    uint32_t change;
    std::memcpy(&change, data, 4);
    bytes[(change >> 8) % bytes.size()] = static_cast<char>(change);
  }
  if (size > 0) bytes.resize(bytes.size() * data[0] / 255);
  put(path, bytes);
  const auto targets = tensors();
  bool restored = false;
  try {
    TrainingStateFile(path).restore(targets);
    restored = true;
  } catch (const Error&) {
  }
  // Bytes between the parts belong to nothing and may differ; what was restored must not.
  for (const NamedTensor& named : targets)
    for (size_t i = 0; i < named.tensor.bytes(); ++i) require(named.tensor.raw()[i] == 0);
  if (bytes == whole) require(restored);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  static const std::filesystem::path path = fuzz_path(".bin");
  const std::string_view rest(reinterpret_cast<const char*>(data + 1), size - 1);
  try {
    switch (data[0] % 4) {
      case 0:
        put(path, rest);
        read_safetensors(path);
        break;
      case 1: {
        const uint64_t length = rest.size();
        std::string content(8, '\0');
        std::memcpy(content.data(), &length, 8);
        put(path, content.append(rest).append(64, 'x'));
        read_safetensors(path);
        break;
      }
      case 2: {
        put(path, rest);
        const TrainingStateFile file(path);
        break;
      }
      default:
        read_changed_state(path, data + 1, size - 1);
    }
  } catch (const Error&) {
  }
  std::error_code ignored;
  std::filesystem::remove(path, ignored);
  return 0;
}
