#include "launch/console.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "base/error.h"

namespace lh {
namespace {

constexpr auto kPause = std::chrono::milliseconds(50);
constexpr size_t kLongestLine = 64 << 10;  // a longer one is printed in pieces

void write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t wrote = ::write(fd, text.data(), text.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return;  // nobody listens; the file still has it
    text.remove_prefix(static_cast<size_t>(wrote));
  }
}

}  // namespace

struct Console::Tail {
  std::string file, prefix;
  std::vector<std::string> words;  // a line needs one of them, unless there are none
  int to = 1;
  bool owns_to = false;
  int fd = -1;
  std::string rest;  // of a line without its end
  bool complete = false;
  bool copied = false;
  ~Tail() {
    if (fd >= 0) ::close(fd);
    if (owns_to) ::close(to);
  }
  /// The line as it is to be written; "" if it is not.
  std::string shown(const std::string& line) const {
    const auto has = [&](const std::string& word) { return line.find(word) != std::string::npos; };
    return words.empty() || std::any_of(words.begin(), words.end(), has) ? prefix + line : "";
  }
};

Console::Console() : thread_([this] { run(); }) {}

Console::~Console() {
  {
    const std::lock_guard lock(mutex_);
    for (const auto& tail : tails_) tail->complete = true;
    end_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void Console::say(LogLevel level, std::string text) {
  {
    const std::lock_guard lock(mutex_);
    lines_.emplace_back(level, std::move(text));
  }
  wake_.notify_one();
}

void Console::follow(const std::filesystem::path& file, const std::string& prefix, int fd) {
  auto tail = std::make_shared<Tail>();
  tail->file = file.string();
  tail->prefix = prefix;
  tail->to = fd;
  add(std::move(tail));
}

void Console::filter(const std::filesystem::path& file, const std::string& prefix,
                     const std::vector<std::string>& words, const std::filesystem::path& copy) {
  auto tail = std::make_shared<Tail>();
  tail->file = file.string();
  tail->prefix = prefix;
  tail->words = words;
  tail->to = ::open(copy.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (tail->to < 0) fail<IoError>("cannot write {}: {}", copy.string(), std::strerror(errno));
  tail->owns_to = true;
  add(std::move(tail));
}

void Console::add(std::shared_ptr<Tail> tail) {
  const std::lock_guard lock(mutex_);
  tails_.push_back(std::move(tail));
}

void Console::finish_following() {
  const std::lock_guard lock(mutex_);
  for (const auto& tail : tails_) tail->complete = true;
}

/// Copies what is new; false when that was nothing.
bool Console::copy(Tail& tail) {
  if (tail.fd < 0) tail.fd = ::open(tail.file.c_str(), O_RDONLY | O_CLOEXEC);
  if (tail.fd < 0) return false;
  std::string buffer(64 << 10, '\0');
  const ssize_t got = ::read(tail.fd, buffer.data(), buffer.size());
  if (got <= 0) return false;
  tail.rest.append(buffer, 0, static_cast<size_t>(got));
  std::string text;
  for (size_t end; (end = tail.rest.find('\n')) != std::string::npos;) {
    text += tail.shown(tail.rest.substr(0, end + 1));
    tail.rest.erase(0, end + 1);
  }
  if (tail.rest.size() > kLongestLine) text += tail.shown(std::exchange(tail.rest, "") + "\n");
  write_all(tail.to, text);
  return true;
}

void Console::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    const auto lines = std::exchange(lines_, {});
    const auto tails = tails_;
    const bool end = end_;
    std::vector<bool> complete;
    for (const auto& tail : tails) complete.push_back(tail->complete);
    lock.unlock();
    // A worker's own words before the launcher's about its end.
    bool busy = !lines.empty();
    for (size_t i = 0; i < tails.size(); ++i) {
      // A chatty worker lets the others have their turn, until it has ended.
      for (int turn = 0; (complete[i] || turn < 16) && copy(*tails[i]); ++turn) busy = true;
      if (!complete[i]) continue;
      if (!tails[i]->rest.empty())
        write_all(tails[i]->to, tails[i]->shown(std::exchange(tails[i]->rest, "") + "\n"));
      tails[i]->copied = true;
    }
    for (const auto& [level, text] : lines)
      if (level >= log_level()) log_message(level, text);
    lock.lock();
    std::erase_if(tails_, [](const auto& tail) { return tail->copied; });
    if (end && lines_.empty() && tails_.empty()) return;
    if (!busy) wake_.wait_for(lock, kPause);
  }
}

}  // namespace lh
