#include "data/text_input.h"

#include <fcntl.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/hash.h"

namespace lh {
namespace fs = std::filesystem;

struct TextInput::State {
  std::string name;
  bool named_gzip = false;
  gzFile file = nullptr;
  int64_t bytes = 0;
  Digest digest;

  ~State() {
    if (file != nullptr) gzclose(file);
  }
};

TextInput::TextInput(const fs::path& path) : state_(std::make_unique<State>()) {
  State& s = *state_;
  const bool standard = path == "-";
  s.name = standard ? "standard input" : path.string();
  s.named_gzip = path.extension() == ".gz" || path.extension() == ".dz";
  const int fd = standard ? ::dup(STDIN_FILENO) : ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail<IoError>("cannot open {}: {}", s.name, std::strerror(errno));
  s.file = gzdopen(fd, "rb");  // passes files that are not gzip through as they are
  if (s.file == nullptr) {
    ::close(fd);
    throw std::bad_alloc();
  }
  gzbuffer(s.file, 1 << 18);
}

TextInput::~TextInput() = default;

size_t TextInput::read(std::span<char> buffer) {
  State& s = *state_;
  errno = 0;
  const unsigned room = static_cast<unsigned>(std::min<size_t>(buffer.size(), 1 << 30));
  const int got = gzread(s.file, buffer.data(), room);
  int code = Z_OK;
  const char* message = gzerror(s.file, &code);
  if (code == Z_ERRNO) fail<IoError>("cannot read {}: {}", s.name, std::strerror(errno));
  if (got < 0 || (code != Z_OK && code != Z_STREAM_END))
    fail<IoError>("{}: broken gzip data after {} bytes of text: {}", s.name,
                  s.bytes + std::max(got, 0), message);
  if (s.named_gzip && gzdirect(s.file) == 1)
    fail<IoError>("{} is named like a gzip file but is none; rename it", s.name);
  s.digest.update(buffer.data(), static_cast<size_t>(got));
  s.bytes += got;
  return static_cast<size_t>(got);
}

int64_t TextInput::disk_position() const {
  const int64_t offset = gzoffset(state_->file);
  return offset >= 0 ? offset : state_->bytes;  // a pipe has no position
}

SourceFile TextInput::source() const {
  const fs::path path = state_->name;
  return {path.filename().string(), state_->bytes, state_->digest.hex()};
}

int64_t disk_bytes(std::span<const fs::path> paths) {
  int64_t total = 0;
  for (const fs::path& path : paths) {
    std::error_code error;
    if (path == "-" || !fs::is_regular_file(path, error)) return 0;
    total += static_cast<int64_t>(fs::file_size(path, error));
  }
  return total;
}

}  // namespace lh
