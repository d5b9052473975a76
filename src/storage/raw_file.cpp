#include "storage/raw_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "base/error.h"

namespace lh {
namespace fs = std::filesystem;

namespace {

int open_or_fail(const fs::path& path, int flags) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC, 0644);
  if (fd < 0) fail<IoError>("cannot open {}: {}", path.string(), std::strerror(errno));
  return fd;
}

}  // namespace

RawFile RawFile::open_read(const fs::path& path) {
  return RawFile(open_or_fail(path, O_RDONLY), path.string());
}

RawFile RawFile::create(const fs::path& path) {
  return RawFile(open_or_fail(path, O_RDWR | O_CREAT | O_TRUNC), path.string());
}

RawFile RawFile::open_write(const fs::path& path) {
  return RawFile(open_or_fail(path, O_RDWR), path.string());
}

RawFile RawFile::temporary_in(const fs::path& folder) {
  // mkstemp and unlink rather than O_TMPFILE: network and overlay file systems lack the latter.
  std::string name = (folder / ".longhand-spool-XXXXXX").string();
  const int fd = ::mkostemp(name.data(), O_CLOEXEC);
  if (fd < 0)
    fail<IoError>("cannot create a temporary file in folder {}: {}", folder.string(),
                  std::strerror(errno));
  ::unlink(name.c_str());
  return RawFile(fd, "a temporary file in folder " + folder.string());
}

RawFile::RawFile(RawFile&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), name_(std::move(other.name_)) {}

RawFile::~RawFile() {
  if (fd_ >= 0) ::close(fd_);
}

int64_t RawFile::size() const {
  struct stat status;
  if (::fstat(fd_, &status) != 0) fail<IoError>("cannot stat {}: {}", name_, std::strerror(errno));
  if (!S_ISREG(status.st_mode)) fail<IoError>("{} is not a regular file", name_);
  return status.st_size;
}

void RawFile::read_at(int64_t offset, void* data, int64_t bytes) const {
  char* cursor = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t got = ::pread(fd_, cursor, static_cast<size_t>(bytes), offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail<IoError>("cannot read {}: {}", name_, std::strerror(errno));
    if (got == 0)
      fail<IoError>("{} ends at byte {}, {} more bytes were expected: it changed while open", name_,
                    offset, bytes);
    cursor += got;
    offset += got;
    bytes -= got;
  }
}

void RawFile::digest(int64_t begin, int64_t end, Digest& into) const {
  std::vector<char> buffer(static_cast<size_t>(std::clamp<int64_t>(end - begin, 0, 1 << 20)));
  while (begin < end) {
    const int64_t count = std::min<int64_t>(end - begin, static_cast<int64_t>(buffer.size()));
    read_at(begin, buffer.data(), count);
    into.update(buffer.data(), static_cast<size_t>(count));
    begin += count;
  }
}

void RawFile::write_at(int64_t offset, const void* data, int64_t bytes) {
  const char* cursor = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t put = ::pwrite(fd_, cursor, static_cast<size_t>(bytes), offset);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) fail<IoError>("cannot write {}: {}", name_, std::strerror(errno));
    cursor += put;
    offset += put;
    bytes -= put;
  }
}

void RawFile::resize(int64_t bytes) {
  if (::ftruncate(fd_, bytes) != 0)
    fail<IoError>("cannot set the size of {} to {} bytes: {}", name_, bytes, std::strerror(errno));
}

std::string digest_of_file(const fs::path& path) {
  const RawFile file = RawFile::open_read(path);
  Digest digest;
  file.digest(0, file.size(), digest);
  return digest.hex();
}

}  // namespace lh
