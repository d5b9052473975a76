// The HDF5 file a run resumes from: masters, optimizer state, counters.
//
//   /meta              string: JSON object of counters and digests, all as text
//   /tensors/<name>    contiguous array; attributes dtype (bf16 is stored as uint16) and digest
//
// Its first 512 bytes, HDF5's user block, seal the structure with a digest that is checked before
// the library sees the file: its parser does not survive every damaged one.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "checkpoint/stored_tensor.h"
#include "storage/raw_file.h"

namespace lh {

/// Reads the tensors in their order, once each, one at a time. Equal states give equal files. The caller makes the
/// write atomic (checkpoint_folder.h). IoError when the disk is full or the folder can't be written.
void write_training_state(const std::filesystem::path& path,
                          const std::map<std::string, std::string>& meta,
                          const std::vector<StoredTensor>& tensors);
void write_training_state(const std::filesystem::path& path,
                          const std::map<std::string, std::string>& meta,
                          const std::vector<NamedTensor>& tensors);

class TrainingStateFile {
 public:
  /// Checks seal, structure and meta, not yet the tensors. IoError names the file and what is
  /// wrong.
  explicit TrainingStateFile(const std::filesystem::path& path);

  const std::map<std::string, std::string>& meta() const { return meta_; }
  std::vector<std::string> names() const;
  bool contains(const std::string& name) const { return entries_.contains(name); }
  const Shape& shape(const std::string& name) const { return entries_.at(name).shape; }

  /// Every one of `wanted` has a tensor of its shape and dtype here, all differences in one IoError, and
  /// their bytes are those that were written.
  void check(const std::vector<StoredTensor>& wanted) const;
  /// The tensor of that name into one of its shape and dtype, both checked before.
  void read(const std::string& name, Tensor& into) const;
  /// Fills the targets by name; nothing is changed when the check fails.
  void restore(const std::vector<NamedTensor>& targets) const;

 private:
  struct Entry {
    DType dtype;
    Shape shape;
    std::string digest;
    int64_t begin = 0, bytes = 0;
  };
  void read_structure();

  std::string name_;
  RawFile file_;
  std::map<std::string, std::string> meta_;
  std::map<std::string, Entry> entries_;
};

}  // namespace lh
