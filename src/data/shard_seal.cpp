#include "data/shard_seal.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string_view>

#include "base/error.h"
#include "base/hash.h"
#include "storage/raw_file.h"

namespace lh {
namespace fs = std::filesystem;

namespace {

constexpr std::string_view kMagic = "longhand token shard, format ";
constexpr std::string_view kHdf5Signature = "\x89HDF\r\n\x1a\n";

std::string seal_text(const ShardSeal& seal) {
  std::string text = fmt::format(
      "{}{}\nfile_bytes {}\ntokens_begin {}\ntokens_bytes {}\ntokens_digest {}\nrest_digest {}\n",
      kMagic, seal.format, seal.file_bytes, seal.tokens_begin, seal.tokens_bytes,
      seal.tokens_digest, seal.rest_digest);
  text += fmt::format("seal_digest {}\n", digest_of(text));
  LH_CHECK(text.size() <= kSealBytes, "[shard] seal of {} bytes", text.size());
  text.resize(kSealBytes, '\0');
  return text;
}

/// Cuts "<key><value>\n" off the front of `text`.
std::optional<std::string_view> take_line(std::string_view& text, std::string_view key) {
  const size_t end = text.find('\n');
  if (end == std::string_view::npos || !text.starts_with(key)) return std::nullopt;
  const std::string_view value = text.substr(key.size(), end - key.size());
  text.remove_prefix(end + 1);
  return value;
}

bool parse_number(std::optional<std::string_view> text, int64_t& value) {
  if (!text) return false;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  return error == std::errc() && end == text->data() + text->size() && value >= 0;
}

std::string digest_ranges(const RawFile& file,
                          std::initializer_list<std::pair<int64_t, int64_t>> ranges) {
  Digest digest;
  for (const auto& [begin, end] : ranges) file.digest(begin, end, digest);
  return digest.hex();
}

std::string rest_digest(const RawFile& file, const ShardSeal& seal) {
  return digest_ranges(file, {{kSealBytes, seal.tokens_begin},
                              {seal.tokens_begin + seal.tokens_bytes, seal.file_bytes}});
}

std::string tokens_digest(const RawFile& file, const ShardSeal& seal) {
  return digest_ranges(file, {{seal.tokens_begin, seal.tokens_begin + seal.tokens_bytes}});
}

[[noreturn]] void fail_foreign(const fs::path& path, std::string_view head) {
  if (head.starts_with(kHdf5Signature))
    fail<IoError>(
        "{}: an HDF5 file, but not a token shard (expected 'longhand token shard' in its first "
        "bytes); make shards with 'longhand data prepare'",
        path.string());
  fail<IoError>(
      "{}: not a token shard (expected 'longhand token shard' in its first bytes); make "
      "shards with 'longhand data prepare'",
      path.string());
}

}  // namespace

void write_seal(const fs::path& path, ShardSeal seal) {
  RawFile file = RawFile::open_write(path);
  seal.file_bytes = file.size();
  LH_CHECK(seal.tokens_begin >= kSealBytes && seal.tokens_bytes >= 0 &&
               seal.tokens_begin + seal.tokens_bytes <= seal.file_bytes,
           "[shard] tokens at {} of {} bytes in a file of {}", seal.tokens_begin, seal.tokens_bytes,
           seal.file_bytes);
  seal.tokens_digest = tokens_digest(file, seal);
  seal.rest_digest = rest_digest(file, seal);
  const std::string text = seal_text(seal);
  file.write_at(0, text.data(), kSealBytes);
}

ShardSeal check_seal(const fs::path& path) {
  const RawFile file = RawFile::open_read(path);
  const int64_t size = file.size();
  std::string head(static_cast<size_t>(std::min(size, kSealBytes)), '\0');
  file.read_at(0, head.data(), static_cast<int64_t>(head.size()));

  ShardSeal seal;
  std::string_view rest = head;
  if (!parse_number(take_line(rest, kMagic), seal.format)) fail_foreign(path, head);
  if (seal.format > kShardFormat)
    fail<IoError>("{}: token shard of format {}, this build reads up to {}; use a newer longhand",
                  path.string(), seal.format, kShardFormat);
  if (size < kSealBytes)
    fail<IoError>("{}: token shard cut off after {} bytes, inside its first {}; write it again",
                  path.string(), size, kSealBytes);
  bool complete = parse_number(take_line(rest, "file_bytes "), seal.file_bytes) &&
                  parse_number(take_line(rest, "tokens_begin "), seal.tokens_begin) &&
                  parse_number(take_line(rest, "tokens_bytes "), seal.tokens_bytes);
  const auto tokens_hex = take_line(rest, "tokens_digest ");
  const auto rest_hex = take_line(rest, "rest_digest ");
  complete =
      complete && tokens_hex && rest_hex && tokens_hex->size() == 32 && rest_hex->size() == 32;
  if (complete) {
    seal.tokens_digest = *tokens_hex;
    seal.rest_digest = *rest_hex;
  }
  // Writing the parsed values again must give the same bytes: covers the digest of the seal, the
  // zero padding and every odd way to write a number.
  if (!complete || seal_text(seal) != head)
    fail<IoError>(
        "{}: damaged token shard (its first {} bytes do not match their digest); write "
        "it again with 'longhand data prepare'",
        path.string(), kSealBytes);
  if (seal.file_bytes != size)
    fail<IoError>(
        "{}: token shard of {} bytes, but {} were written: {}; copy it again or write "
        "it again with 'longhand data prepare'",
        path.string(), size, seal.file_bytes,
        size < seal.file_bytes ? "it is truncated" : "something was appended");
  if (seal.tokens_begin < kSealBytes || seal.tokens_bytes > size ||
      seal.tokens_begin > size - seal.tokens_bytes)
    fail<IoError>("{}: token shard whose tokens (byte {}, {} bytes) lie outside its {} bytes",
                  path.string(), seal.tokens_begin, seal.tokens_bytes, size);
  if (const std::string found = rest_digest(file, seal); found != seal.rest_digest)
    fail<IoError>(
        "{}: damaged token shard (digest {} where {} was written); copy it again or "
        "write it again with 'longhand data prepare'",
        path.string(), found, seal.rest_digest);
  return seal;
}

void verify_tokens(const fs::path& path, const ShardSeal& seal) {
  const RawFile file = RawFile::open_read(path);
  if (const std::string found = tokens_digest(file, seal); found != seal.tokens_digest)
    fail<IoError>(
        "{}: damaged tokens (digest {} where {} was written); copy the shard again or "
        "write it again with 'longhand data prepare'",
        path.string(), found, seal.tokens_digest);
}

}  // namespace lh
