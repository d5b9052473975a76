#include "launch/guard.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>

#include "base/error.h"

namespace lh {
namespace {

namespace fs = std::filesystem;

constexpr int kRounds = 200;  // of 10 ms: processes may fork while they are being looked for

bool carries(const fs::path& environ_file, const std::string& launch_id) {
  std::ifstream file(environ_file, std::ios::binary);
  const std::string content(std::istreambuf_iterator<char>(file), {});
  const std::string name = std::string(kLaunchMark) + "=";
  size_t at = content.starts_with(name) ? 0 : content.find('\0' + name);
  if (at == std::string::npos) return false;
  at = content.find('=', at) + 1;
  std::istringstream ids(content.substr(at, content.find('\0', at) - at));
  for (std::string id; ids >> id;)
    if (id == launch_id) return true;
  return false;
}

void close_all_but(int keep) {
  for (int fd = 0; fd < 3; ++fd)
    if (const int null = ::open("/dev/null", O_RDWR); null >= 0) ::dup2(null, fd);
  if (keep > 3) ::close_range(3, static_cast<unsigned>(keep) - 1, 0);
  ::close_range(static_cast<unsigned>(keep) + 1, ~0U, 0);
}

}  // namespace

int kill_marked(const std::string& launch_id) {
  int found = 0;
  std::error_code error;
  for (fs::directory_iterator entry("/proc", error), last; entry != last; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    pid_t pid = 0;
    const auto [end, bad] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (bad != std::errc{} || end != name.data() + name.size()) continue;
    if (pid == ::getpid() || !carries(entry->path() / "environ", launch_id)) continue;
    found += ::kill(pid, SIGKILL) == 0;
  }
  return found;
}

void Guard::watch(int pipe, const std::string& launch_id) {
  ::setsid();  // out of reach of Ctrl-C and of a kill of the launcher's group
  ::prctl(PR_SET_NAME, "longhand-guard");
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGPIPE})
    ::signal(signal, SIG_IGN);
  close_all_but(pipe);
  std::set<pid_t> groups;
  const auto kill_all = [&] {
    for (const pid_t group : groups) ::kill(-group, SIGKILL);
    for (int round = 0; round < kRounds && kill_marked(launch_id) > 0; ++round) ::usleep(10'000);
  };
  int lease = -1;  // milliseconds
  for (;;) {
    pollfd readable{pipe, POLLIN, 0};
    const int ready = ::poll(&readable, 1, lease);  // every word renews the lease
    if (ready < 0) continue;                        // interrupted
    if (ready == 0) {
      kill_all();
      lease = -1;
      continue;
    }
    Word word;
    const ssize_t got = ::read(pipe, &word, sizeof word);
    if (got < 0 && errno == EINTR) continue;
    if (got != sizeof word) break;  // the launcher is dead
    if (word.kind == Word::kAllIsWell) ::_exit(0);
    if (word.kind == Word::kStarted) groups.insert(word.value);
    if (word.kind == Word::kEnded) groups.erase(word.value);
    if (word.kind == Word::kLease) lease = word.value > 0 ? word.value : -1;
  }
  kill_all();
  ::_exit(0);
}

Guard::Guard(const std::string& launch_id) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) fail<Error>("cannot open a pipe: {}", std::strerror(errno));
  pid_ = ::fork();
  if (pid_ < 0) fail<Error>("cannot start a process: {}", std::strerror(errno));
  if (pid_ == 0) {
    ::close(ends[1]);
    watch(ends[0], launch_id);
  }
  ::close(ends[0]);
  pipe_ = ends[1];
}

Guard::~Guard() {
  tell({Word::kAllIsWell, 0});
  ::close(pipe_);
  ::waitpid(pid_, nullptr, 0);
}

void Guard::tell(Word word) {
  // SIGPIPE is ignored in launchers: should somebody kill the guard, PR_SET_PDEATHSIG remains.
  while (::write(pipe_, &word, sizeof word) < 0 && errno == EINTR) {
  }
}

}  // namespace lh
