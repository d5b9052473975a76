// Positioned reads and writes on a plain file, with errors that name the file and the reason.
// Reads are thread-safe: they move no file position.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "base/hash.h"

namespace lh {

class RawFile {
 public:
  static RawFile open_read(const std::filesystem::path& path);
  static RawFile create(const std::filesystem::path& path);      // empties an existing one
  static RawFile open_write(const std::filesystem::path& path);  // must exist; read and write
  /// An unnamed file in `folder` that vanishes with the process, whatever ends it.
  static RawFile temporary_in(const std::filesystem::path& folder);

  RawFile(RawFile&& other) noexcept;
  RawFile& operator=(RawFile&&) = delete;
  ~RawFile();

  int64_t size() const;
  /// Reads exactly `bytes`; IoError on a system error or when the file ends before that.
  void read_at(int64_t offset, void* data, int64_t bytes) const;
  /// Adds the bytes [begin, end) to a digest.
  void digest(int64_t begin, int64_t end, Digest& into) const;
  void write_at(int64_t offset, const void* data, int64_t bytes);
  void resize(int64_t bytes);

 private:
  RawFile(int fd, std::string name) : fd_(fd), name_(std::move(name)) {}

  int fd_;
  std::string name_;
};

/// Digest of a whole file, read piece by piece.
std::string digest_of_file(const std::filesystem::path& path);

}  // namespace lh
