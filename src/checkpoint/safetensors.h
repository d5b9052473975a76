// The safetensors format: an 8-byte length, a JSON header, raw little-endian tensors.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "checkpoint/stored_tensor.h"
#include "storage/raw_file.h"
#include "tensor/tensor.h"

namespace lh {

/// An open file whose header has been checked: known dtypes, shapes that fit their byte ranges,
/// ranges that cover the data without holes or overlaps. IoError names file, tensor and reason.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(std::filesystem::path path);

  std::vector<std::string> names() const;
  bool contains(const std::string& name) const { return entries_.contains(name); }
  const Shape& shape(const std::string& name) const { return entry(name).shape; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  bool is_floating(const std::string& name) const;
  std::string describe(const std::string& name) const;  // "BF16[2048, 128]"

  /// The tensor; F16 becomes f32. IoError for an unknown name, with the nearest known one.
  Tensor read(const std::string& name) const;
  /// Into one of the same shape on any device, converting between floating dtypes.
  void read_into(const std::string& name, Tensor into) const;

 private:
  struct Entry {
    std::string dtype;
    Shape shape;
    size_t begin = 0, end = 0;  // in the file
  };
  const Entry& entry(const std::string& name) const;

  std::filesystem::path path_;
  RawFile file_;
  std::map<std::string, Entry> entries_;
  std::map<std::string, std::string> metadata_;
};

/// Writes tensors (f32, bf16, f64, i32, i64, u8) atomically, reading them in their order, once each, one at a time.
void write_safetensors(const std::filesystem::path& path, const std::vector<StoredTensor>& tensors,
                       const std::map<std::string, std::string>& metadata = {});
void write_safetensors(const std::filesystem::path& path, const std::vector<NamedTensor>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace lh
