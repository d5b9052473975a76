#include "base/file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace lh {
namespace fs = std::filesystem;

namespace {

/// A file descriptor that closes itself.
class Descriptor {
 public:
  Descriptor(const fs::path& path, int flags, mode_t mode = 0)
      : fd_(::open(path.c_str(), flags | O_CLOEXEC, mode)) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  bool ok() const { return fd_ >= 0; }

 private:
  int fd_;
};

}  // namespace

std::string read_file(const fs::path& path) {
  Descriptor file(path, O_RDONLY);
  if (!file.ok()) fail<IoError>("cannot open {}: {}", path.string(), std::strerror(errno));
  std::string content;
  char buffer[1 << 16];
  for (;;) {
    const ssize_t got = ::read(file.get(), buffer, sizeof buffer);
    if (got == 0) return content;
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail<IoError>("cannot read {}: {}", path.string(), std::strerror(errno));
    content.append(buffer, static_cast<size_t>(got));
  }
}

void sync_path(const fs::path& path) {
  Descriptor file(path, O_RDONLY);
  if (!file.ok() || ::fsync(file.get()) != 0)
    fail<IoError>("cannot sync {} to disk: {}", path.string(), std::strerror(errno));
}

void write_atomically(const fs::path& path, const std::function<void(const fs::path&)>& write) {
  const fs::path temporary = path.string() + fmt::format(".tmp{}", ::getpid());
  try {
    write(temporary);
    sync_path(temporary);
    std::error_code error;
    fs::rename(temporary, path, error);
    if (error)
      fail<IoError>("cannot rename {} to {}: {}", temporary.string(), path.string(),
                    error.message());
  } catch (...) {
    std::error_code ignored;
    fs::remove(temporary, ignored);
    throw;
  }
  sync_path(path.has_parent_path() ? path.parent_path() : fs::path("."));
}

void write_file_atomically(const fs::path& path, std::string_view content) {
  write_atomically(path, [&](const fs::path& temporary) {
    Descriptor file(temporary, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (!file.ok()) fail<IoError>("cannot create {}: {}", path.string(), std::strerror(errno));
    while (!content.empty()) {
      const ssize_t wrote = ::write(file.get(), content.data(), content.size());
      if (wrote < 0 && errno == EINTR) continue;
      if (wrote < 0) fail<IoError>("cannot write {}: {}", path.string(), std::strerror(errno));
      content.remove_prefix(static_cast<size_t>(wrote));
    }
  });
}

}  // namespace lh
