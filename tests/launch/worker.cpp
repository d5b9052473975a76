// A worker for the launcher's tests: does what its arguments say, one after the other.
//   say TEXT             prints "TEXT <rank>/<world>", flushed
//   env NAME             prints NAME=value
//   err TEXT             the same on stderr
//   words TEXT           leaves TEXT in LH_ERROR_FILE, as longhand does
//   peer TEXT            the same, as the consequence of another's failure
//   sleep SECONDS
//   exit CODE            by itself; with "on RANK" only there
//   signal NUMBER        kills itself with it
//   on RANK              the next command only on this rank
//   gen N                the next command only in this generation
//   save SECONDS CODE    from now on SIGTERM means: work so long, then exit so
//   deaf                 ignores SIGTERM
//   child SECONDS        leaves a child in its process group that sleeps
//   daemon SECONDS       the same, in a session of its own
//   pid FILE             appends its pid (of child and daemon too) to FILE
//   mark FILE TEXT       appends "TEXT rank generation monotonic-seconds" to FILE
#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>

#include "launch/error_file.h"

namespace {

double g_save_seconds = 0;
int g_save_code = 0;

void append(const std::string& file, const std::string& line) {
  const int fd = ::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  if (::write(fd, line.data(), line.size()) < 0) std::abort();
  ::close(fd);
}

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void sleep_for(double seconds) {
  for (const double end = now() + seconds; now() < end;) ::usleep(5000);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string rank = variable("RANK"), generation = variable("LH_GENERATION");
  std::string pid_file;
  bool skip = false;
  for (int i = 1; i < argc; ++i) {
    const std::string command = argv[i];
    const auto next = [&] { return i + 1 < argc ? std::string(argv[++i]) : std::string(); };
    const auto number = [&] { return std::atof(next().c_str()); };
    if (command == "on") {
      skip |= next() != rank;
      continue;
    }
    if (command == "gen") {
      skip |= next() != generation;
      continue;
    }
    const bool act = !std::exchange(skip, false);
    if (command == "say") {
      const std::string text = next();
      if (act)
        std::printf("%s %s/%s\n", text.c_str(), rank.c_str(), variable("WORLD_SIZE").c_str());
      std::fflush(stdout);
    } else if (command == "env") {
      const std::string name = next();
      if (act) std::printf("%s=%s\n", name.c_str(), variable(name.c_str()).c_str());
      std::fflush(stdout);
    } else if (command == "err") {
      const std::string text = next();
      if (act) std::fprintf(stderr, "%s\n", text.c_str());
    } else if (command == "words") {
      const std::string text = next();
      if (act) lh::write_last_words(text);
    } else if (command == "peer") {
      const std::string text = next();
      if (act) lh::write_last_words(text, true);
    } else if (command == "sleep") {
      const double seconds = number();
      if (act) sleep_for(seconds);
    } else if (command == "exit") {
      const int code = static_cast<int>(number());
      if (act) return code;
    } else if (command == "signal") {
      const int signal = static_cast<int>(number());
      if (act) ::raise(signal);
    } else if (command == "save") {
      g_save_seconds = number();
      g_save_code = static_cast<int>(number());
      std::signal(SIGTERM, [](int) {
        sleep_for(g_save_seconds);
        ::_exit(g_save_code);
      });
    } else if (command == "deaf") {
      if (act) std::signal(SIGTERM, SIG_IGN);
    } else if (command == "child" || command == "daemon") {
      const double seconds = number();
      if (act && ::fork() == 0) {
        if (command == "daemon") ::setsid();
        std::signal(SIGTERM, SIG_IGN);
        if (!pid_file.empty()) append(pid_file, std::to_string(::getpid()) + "\n");
        sleep_for(seconds);
        return 0;
      }
    } else if (command == "pid") {
      pid_file = next();
      if (act) append(pid_file, std::to_string(::getpid()) + "\n");
    } else if (command == "mark") {
      const std::string file = next(), text = next();
      if (act)
        append(file, text + " " + rank + " " + generation + " " + std::to_string(now()) + "\n");
    } else {
      std::fprintf(stderr, "unknown command %s\n", command.c_str());
      return 99;
    }
  }
  return 0;
}
