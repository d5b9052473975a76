// The bytes of one input: a file, a gzip file (.gz, or dictzip's .dz) or standard input ("-"),
// decompressed as they are read.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "data/token_shard.h"

namespace lh {

class TextInput {
 public:
  /// IoError when the file can't be opened.
  explicit TextInput(const std::filesystem::path& path);
  ~TextInput();

  /// Fills `buffer` from the front; returns the bytes read, 0 at the end. IoError for a file that
  /// can't be read, is named .gz or .dz but is not gzip, or ends inside its compressed data.
  size_t read(std::span<char> buffer);

  /// Bytes of the file on disk that have been used (compressed ones), for progress; of a pipe, the
  /// bytes read.
  int64_t disk_position() const;

  /// Name, bytes and digest of what has been read.
  SourceFile source() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Bytes on disk of all inputs; 0 when one of them is standard input or a pipe.
int64_t disk_bytes(std::span<const std::filesystem::path> paths);

}  // namespace lh
