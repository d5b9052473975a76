// The structure of an HDF5 file, built in memory. The library must not write to a disk that may be
// full: after a failed write (1.10.8) it can neither close the file nor end the process without
// touching freed memory. So it lays the file out, and plain writes put structure and arrays on
// disk.
#pragma once

#include <filesystem>
#include <span>
#include <string>

#include "storage/hdf5_handle.h"

namespace lh {

/// Take a Hdf5Section around its whole life.
class Hdf5Layout {
 public:
  struct Options {
    int64_t user_block = 0;  // bytes in front of the HDF5 part: 0, or a power of two >= 512
    int64_t structure_bytes =
        0;  // room for groups, datasets and attributes, in front of all arrays
  };
  /// Nothing is written to `path`, which names the file in errors.
  Hdf5Layout(const std::filesystem::path& path, const Options& options);

  void attribute(const char* name, int64_t value);
  void attribute(const char* name, const std::string& value);
  /// An attribute of a dataset.
  void attribute_of(const std::string& dataset, const char* name, const std::string& value);
  void group(const char* name);
  /// A dataset of one string. Comes before all arrays.
  void text(const char* name, const std::string& value);
  /// A contiguous array with its place in the file assigned and nothing written there. Returns
  /// the place.
  int64_t array(const std::string& name, hid_t type, std::span<const int64_t> sizes);

  /// Closes the file and returns its first bytes; those missing up to `size` belong to arrays.
  std::string close(int64_t& size);

 private:
  /// What the library would have written to a file. It keeps a file in memory between these calls.
  struct Image {
    size_t memory_bytes = 0;
    std::string content;  // after the file is closed
  };
  static H5FD_file_image_callbacks_t callbacks(Image* image);
  Handle memory_access(int64_t structure_bytes);
  void write_attribute(hid_t object, const char* name, const std::string& value);
  void check(bool ok) const;

  std::string name_;
  Image image_;
  Handle create_;
  Handle access_;
  Handle file_;
};

}  // namespace lh
