#include "checkpoint/state_seal.h"

#include <algorithm>
#include <cstdio>

#include "base/error.h"
#include "base/hash.h"

namespace lh {
namespace {

constexpr int64_t kFormat = 2;
constexpr const char* kMagic = "longhand training state, format ";

std::string structure_digest(const RawFile& file, int64_t end) {
  Digest digest;
  file.digest(kStateSealBytes, end, digest);
  return digest.hex();
}

std::string seal_text(int64_t file_bytes, int64_t structure_end, const std::string& digest) {
  std::string text = fmt::format("{}{}\nfile_bytes {}\nstructure_end {}\nstructure_digest {}\n",
                                 kMagic, kFormat, file_bytes, structure_end, digest);
  text += fmt::format("seal_digest {}\n", digest_of(text));
  text.resize(kStateSealBytes, '\0');
  return text;
}

}  // namespace

void write_state_seal(RawFile& file, int64_t structure_end) {
  const std::string text =
      seal_text(file.size(), structure_end, structure_digest(file, structure_end));
  file.write_at(0, text.data(), kStateSealBytes);
}

void check_state_seal(const RawFile& file, const std::string& name) {
  const auto bad = [&](const std::string& reason) {
    fail<IoError>("{}: not a usable training state: {}", name, reason);
  };
  const int64_t size = file.size();
  std::string head(static_cast<size_t>(std::min(size, kStateSealBytes)), '\0');
  file.read_at(0, head.data(), static_cast<int64_t>(head.size()));
  if (!head.starts_with(kMagic))
    bad("it does not begin like one (expected 'longhand training state')");
  long long format = 0, file_bytes = 0, structure_end = 0;
  char digest[33] = {};
  const int fields =
      std::sscanf(head.c_str() + std::string_view(kMagic).size(),
                  "%lld\nfile_bytes %lld\nstructure_end %lld\nstructure_digest %32[0-9a-f]",
                  &format, &file_bytes, &structure_end, digest);
  if (fields >= 1 && format != kFormat)
    bad(fmt::format("it has format {}, this build reads format {}", format, kFormat));
  // Writing the parsed values again must give the same bytes: covers the seal's own digest.
  if (fields != 4 || head != seal_text(file_bytes, structure_end, digest))
    bad(fmt::format("its first {} bytes are damaged", kStateSealBytes));
  if (file_bytes != size)
    bad(fmt::format("it has {} bytes where {} were written: {}", size, file_bytes,
                    size < file_bytes ? "it is truncated" : "something was appended"));
  if (structure_end < kStateSealBytes || structure_end > size ||
      structure_digest(file, structure_end) != digest)
    bad("its structure was changed since it was saved (digest differs)");
}

}  // namespace lh
