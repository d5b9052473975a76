// The 512-byte seal at the front of a token shard (in HDF5's user block, which its readers skip).
// It holds the file's size and the digests of its content as text, and is checked before HDF5
// sees a single byte: the library's parser does not survive every damaged file, so it is only
// given files that are known to be as they were written.
//
// The tokens have a digest of their own, checked on request, because reading them all at every
// open would cost minutes on a large corpus; everything else in the file is checked at open.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace lh {

inline constexpr int64_t kShardFormat = 1;
inline constexpr int64_t kSealBytes = 512;  // the smallest user block HDF5 allows

struct ShardSeal {
  int64_t format = kShardFormat;
  int64_t file_bytes = 0;
  int64_t tokens_begin = 0;  // byte range of the token array
  int64_t tokens_bytes = 0;
  std::string tokens_digest;  // of that range
  std::string rest_digest;    // of every other byte behind the seal
};

/// Digests a finished file and writes its seal. `seal` gives format and token range.
void write_seal(const std::filesystem::path& path, ShardSeal seal);

/// Reads and checks the seal and everything outside the tokens. IoError says what is wrong: not a
/// shard, a newer format, truncated, or damaged.
ShardSeal check_seal(const std::filesystem::path& path);

/// Reads all tokens and compares their digest. IoError when it differs.
void verify_tokens(const std::filesystem::path& path, const ShardSeal& seal);

}  // namespace lh
