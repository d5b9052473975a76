// The HDF5 structure of a token shard: creating it with room for the arrays, and reading it back
// with every type and shape checked. The arrays' content is read and written by position.
#pragma once

#include <filesystem>
#include <string>

#include "data/token_shard.h"

namespace lh {

/// Byte positions of the arrays in the file.
struct ShardLayout {
  int64_t tokens_begin = 0;
  int64_t offsets_begin = 0;
  int64_t bytes_begin = 0;
};

/// Creates the file, with datasets sized after `info` and arrays of no particular content. IoError
/// when it can't be written.
ShardLayout create_shard_structure(const std::filesystem::path& path, const ShardInfo& info,
                                   const std::string& tokenizer_json);

/// Reads what create_shard_structure wrote. The file must have passed check_seal. IoError names
/// the file and the dataset or attribute that is missing or of another kind.
ShardLayout read_shard_structure(const std::filesystem::path& path, ShardInfo& info,
                                 std::string& tokenizer_json);

}  // namespace lh
