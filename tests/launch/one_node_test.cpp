// One launcher with its workers: ends, signals, orphans, restarts, output.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <poll.h>
#include <pty.h>

#include "launch/error_file.h"
#include "launch/launcher.h"

namespace {

using namespace lh;
using namespace lh::test;

std::vector<std::string> join(std::vector<std::string> a, const std::vector<std::string>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

/// "--nproc-per-node n options... -- worker commands..."
std::vector<std::string> words(int workers, const std::vector<std::string>& options,
                               const std::vector<std::string>& commands) {
  return join(join(join({"--nproc-per-node", std::to_string(workers)}, options), {"--", LH_WORKER}),
              commands);
}

TEST_CASE("workers get torchrun's variables and all of them succeed") {
  const Folder folder;
  Launcher launcher(folder, "a",
                    words(3, {"--standalone", "--role", "trainer", "--max-restarts", "2"},
                          {"say", "rank",
                           "env", "LOCAL_RANK",
                           "env", "LOCAL_WORLD_SIZE",
                           "env", "GROUP_RANK",
                           "env", "GROUP_WORLD_SIZE",
                           "env", "ROLE_NAME",
                           "env", "ROLE_RANK",
                           "env", "MASTER_ADDR",
                           "env", "TORCHELASTIC_MAX_RESTARTS",
                           "env", "TORCHELASTIC_USE_AGENT_STORE",
                           "env", "LH_GENERATION",
                           "env", "CUDA_VISIBLE_DEVICES",
                           "env", "OMP_NUM_THREADS"}),
                    {"CUDA_VISIBLE_DEVICES=5,7", "OMP_NUM_THREADS=9"});
  CHECK(launcher.wait() == 0);
  const std::string out = launcher.out();
  INFO(out, launcher.err());
  for (const char* line :
       {"rank 0/3\n", "rank 1/3\n", "rank 2/3\n", "LOCAL_RANK=2\n", "ROLE_RANK=1\n"})
    CHECK(count_of(out, line) == 1);
  for (const char* line :
       {"LOCAL_WORLD_SIZE=3\n", "GROUP_RANK=0\n", "GROUP_WORLD_SIZE=1\n", "ROLE_NAME=trainer\n",
        "MASTER_ADDR=127.0.0.1\n", "TORCHELASTIC_MAX_RESTARTS=2\n",
        "TORCHELASTIC_USE_AGENT_STORE=False\n", "LH_GENERATION=0\n", "CUDA_VISIBLE_DEVICES=5,7\n",
        "OMP_NUM_THREADS=9\n"})
    CHECK(count_of(out, line) == 3);
}

TEST_CASE("one worker may end early and the others go on") {
  const Folder folder;
  Launcher launcher(folder, "a",
                    words(2, {}, {"on", "0", "exit", "0", "sleep", "0.3", "say", "late"}));
  CHECK(launcher.wait() == 0);
  CHECK(launcher.out() == "late 1/2\n");
}

TEST_CASE("a failure stops all within a second and is the one root cause") {
  const Folder folder;
  const auto file = (folder / "marks").string();
  Launcher launcher(
      folder, "a",
      words(4, {},
            {"deaf", "mark", file, "up", "on", "2", "sleep", "0.3", "on", "2", "words",
             "the tensor is on fire", "on", "2", "exit", "7", "sleep", "60"}));
  REQUIRE(wait_for([&] { return count_of(content(file), "up") == 4; }));
  const Timer timer;
  CHECK(launcher.wait() == 1);
  CHECK(timer.seconds() < 0.3 + 1);
  const std::string err = launcher.err();
  INFO(err);
  CHECK(count_of(err, "root cause: rank 2 (local rank 2 of node 0") == 1);
  CHECK(contains(err, "exited with code 7: the tensor is on fire (3 other workers"));
}

TEST_CASE("a signal is a root cause and its code is passed on when asked for") {
  const Folder folder;
  const std::vector<std::string> commands = {"on", "1", "signal", "11", "sleep", "60"};
  Launcher plain(folder, "a", words(2, {}, commands));
  CHECK(plain.wait() == 1);
  CHECK(contains(plain.err(), "was killed by SIGSEGV"));
  Launcher asked(folder, "b", words(2, {"--propagate-exit-code"}, commands));
  CHECK(asked.wait() == 128 + 11);
  Launcher code(folder, "c",
                words(2, {"--propagate-exit-code"}, {"on", "0", "exit", "5", "sleep", "60"}));
  CHECK(code.wait() == 5);
}

TEST_CASE("nothing survives a launcher that is killed, not even a daemon of a worker") {
  const Folder folder;
  const auto file = (folder / "pids").string();
  Launcher launcher(
      folder, "a",
      words(2, {}, {"deaf", "pid", file, "child", "60", "daemon", "60", "sleep", "60"}));
  REQUIRE(wait_for([&] { return pids_in(file).size() == 6; }));
  launcher.signal(SIGKILL);
  launcher.wait();
  CHECK(wait_for(
      [&] {
        for (const pid_t pid : pids_in(file))
          if (alive(pid)) return false;
        return true;
      },
      3));
}

TEST_CASE("nothing survives the end of its worker either") {
  const Folder folder;
  const auto file = (folder / "pids").string();
  Launcher launcher(folder, "a",
                    words(2, {}, {"pid", file, "child", "60", "daemon", "60", "sleep", "0.2"}));
  CHECK(launcher.wait() == 0);
  CHECK(pids_in(file).size() == 6);
  for (const pid_t pid : pids_in(file)) CHECK(!alive(pid));
}

TEST_CASE("SIGTERM lets workers save and 75 says that they did") {
  const Folder folder;
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1, SIGHUP}) {
    const auto file = (folder / fmt::format("marks{}", signal)).string();
    Launcher launcher(
        folder, "a",
        words(2, {"--grace", "20"}, {"save", "0.3", "75", "mark", file, "up", "sleep", "60"}));
    REQUIRE(wait_for([&] { return count_of(content(file), "up") == 2; }));
    launcher.signal(signal);
    CHECK(launcher.wait() == 75);
    INFO(launcher.err());
    CHECK(contains(launcher.err(), "run it again to resume"));
  }
}

TEST_CASE("nohup is respected") {
  const Folder folder;
  const auto file = (folder / "marks").string();
  Launcher launcher(folder, "a", words(1, {}, {"mark", file, "up", "sleep", "0.5", "say", "done"}),
                    {}, {"nohup"});
  REQUIRE(wait_for([&] { return contains(content(file), "up"); }));
  launcher.signal(SIGHUP);
  CHECK(launcher.wait() == 0);
  CHECK(launcher.out() == "done 0/1\n");
}

TEST_CASE("workers that hang are killed when the grace period is over") {
  const Folder folder;
  const auto file = (folder / "pids").string();
  Launcher launcher(
      folder, "a",
      words(2, {"--grace", "0.7"}, {"deaf", "child", "60", "pid", file, "sleep", "60"}));
  REQUIRE(wait_for([&] { return pids_in(file).size() == 2; }));
  const Timer timer;
  launcher.signal(SIGTERM);
  CHECK(launcher.wait() == 1);
  CHECK(timer.seconds() > 0.6);
  CHECK(timer.seconds() < 2);
  CHECK(contains(launcher.err(), "2 workers ended without saving"));
  for (const pid_t pid : pids_in(file)) CHECK(!alive(pid));
}

TEST_CASE("a second Ctrl-C does not wait") {
  const Folder folder;
  const auto file = (folder / "pids").string();
  Launcher launcher(folder, "a", words(2, {"--grace", "60"}, {"deaf", "pid", file, "sleep", "60"}));
  REQUIRE(wait_for([&] { return pids_in(file).size() == 2; }));
  const Timer timer;
  launcher.signal(SIGINT);
  ::usleep(100'000);
  launcher.signal(SIGINT);
  CHECK(launcher.wait() == 1);
  CHECK(timer.seconds() < 2);
  for (const pid_t pid : pids_in(file)) CHECK(!alive(pid));
}

TEST_CASE("Ctrl-C on a terminal reaches the workers once and as SIGTERM") {
  const Folder folder;
  const auto file = (folder / "log").string();
  // The worker notes every signal that comes.
  put(folder / "worker.sh",
      fmt::format("trap 'echo INT >>{0}' INT\ntrap 'echo TERM >>{0}' TERM\n"
                  "echo up >>{0}\nfor i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.1; done\n"
                  "exit 75\n",
                  file));
  int terminal = -1;
  const pid_t pid = ::forkpty(&terminal, nullptr, nullptr, nullptr);
  if (pid == 0) {
    const std::string script = (folder / "worker.sh").string();
    ::execl(LH_BINARY, "longhand", "launch", "--", "sh", script.c_str(), nullptr);
    ::_exit(127);
  }
  REQUIRE(pid > 0);
  REQUIRE(wait_for([&] { return contains(content(file), "up"); }));
  REQUIRE(::write(terminal, "\x03", 1) == 1);
  int status = 0;
  // The terminal has to be read, or the launcher could not print.
  REQUIRE(wait_for([&] {
    char buffer[4096];
    pollfd readable{terminal, POLLIN, 0};
    if (::poll(&readable, 1, 0) > 0 && ::read(terminal, buffer, sizeof buffer) < 0) ::usleep(1000);
    return ::waitpid(pid, &status, WNOHANG) == pid;
  }));
  ::close(terminal);
  CHECK(WEXITSTATUS(status) == 75);
  CHECK(content(file) == "up\nTERM\n");
}

TEST_CASE("the guard may be killed and nothing happens") {
  const Folder folder;
  const auto file = (folder / "pids").string();
  Launcher launcher(folder, "a", words(1, {}, {"pid", file, "sleep", "0.5", "say", "done"}));
  REQUIRE(wait_for([&] { return pids_in(file).size() == 1; }));
  std::istringstream children(content(fmt::format("/proc/{0}/task/{0}/children", launcher.pid())));
  for (pid_t pid; children >> pid;)
    if (contains(content(fmt::format("/proc/{}/comm", pid)), "guard")) ::kill(pid, SIGKILL);
  CHECK(launcher.wait() == 0);
  CHECK(launcher.out() == "done 0/1\n");
}

TEST_CASE("a worker that saves and leaves by itself stops the others in order") {
  const Folder folder;
  Launcher launcher(
      folder, "a",
      words(3, {}, {"save", "0.2", "75", "sleep", "0.2", "on", "1", "exit", "75", "sleep", "60"}));
  CHECK(launcher.wait() == 75);
}

TEST_CASE("a wrapper script that dies of the signal leaves its child the time to save") {
  const Folder folder;
  const auto file = (folder / "marks").string();
  // The shell has no trap and dies at once; its child needs half a second for "saved".
  Launcher launcher(folder, "a",
                    {"--", "sh", "-c",
                     fmt::format("(trap 'sleep 0.5; echo saved >> {0}; exit 75' TERM; "
                                 "echo up >> {0}; while :; do sleep 0.05; done) & wait",
                                 file)});
  REQUIRE(wait_for([&] { return contains(content(file), "up"); }));
  ::usleep(50'000);  // from the word to the loop
  launcher.signal(SIGTERM);
  CHECK(launcher.wait() == 1);  // the worker, which is the shell, did not save
  CHECK(contains(content(file), "saved"));
}

TEST_CASE("restarts are counted and every generation has its number and its folder") {
  const Folder folder;
  const auto file = (folder / "marks").string();
  const std::vector<std::string> options = {"--max-restarts",           "2",         "--log-dir",
                                            (folder / "logs").string(), "--rdzv-id", "j1"};
  Launcher twice(folder, "a", words(2, options, {"mark",  file,    "up",
                                                 "sleep", "0.2",   "gen",
                                                 "0",     "on",    "1",
                                                 "exit",  "3",     "gen",
                                                 "1",     "on",    "0",
                                                 "exit",  "4",     "gen",
                                                 "0",     "sleep", "60",
                                                 "gen",   "1",     "sleep",
                                                 "60",    "env",   "TORCHELASTIC_RESTART_COUNT"}));
  CHECK(twice.wait() == 0);
  INFO(twice.err());
  CHECK(twice.out() == "TORCHELASTIC_RESTART_COUNT=2\nTORCHELASTIC_RESTART_COUNT=2\n");
  for (const char* generation : {"0", "1", "2"})
    for (const char* rank : {"0", "1"})
      CHECK(contains(content(file), fmt::format("up {} {} ", rank, generation)));
  CHECK(contains(twice.err(), "restart 1 of 2"));
  CHECK(contains(twice.err(), "restart 2 of 2"));

  Launcher always(
      folder, "b",
      words(2, {"--max-restarts", "2"}, {"say", "up", "on", "1", "exit", "3", "sleep", "60"}));
  CHECK(always.wait() == 1);
  CHECK(count_of(always.out(), "up 1/2") == 3);
}

TEST_CASE("output goes to torchrun's folders and to the console as asked") {
  const Folder folder;
  const auto logs = folder / "logs";
  Launcher launcher(folder, "a",
                    words(3,
                          {"--log-dir", logs.string(), "--rdzv-id", "job7", "-r", "3", "-t",
                           "0:1,1:2", "--local_ranks_filter", "0,1"},
                          {"say", "out", "err", "wrong"}));
  CHECK(launcher.wait() == 0);
  CHECK(launcher.out() == "[default0]:out 0/3\n");
  CHECK(count_of(launcher.err(), "[default1]:wrong\n") == 1);
  CHECK(count_of(launcher.err(), "wrong") == 1);
  const auto runs = std::filesystem::directory_iterator(logs);
  const auto run = begin(runs)->path();
  CHECK(run.filename().string().starts_with("job7_"));
  for (int rank = 0; rank < 3; ++rank) {
    const auto worker = run / "attempt_0" / std::to_string(rank);
    CHECK(content(worker / "stdout.log") == fmt::format("out {}/3\n", rank));
    CHECK(content(worker / "stderr.log") == "wrong\n");
  }
}

TEST_CASE("lines with a word go to a file of all workers as well") {
  const Folder folder;
  const auto logs = folder / "logs";
  Launcher launcher(folder, "a",
                    words(2,
                          {"--log-dir", logs.string(), "-r", "3", "--duplicate_stdout_filters", "loss,grad",
                           "--duplicate-stderr-filters=wrong"},
                          {"say", "loss", "say", "other", "say", "the grad", "err", "fine", "err", "all wrong"}));
  CHECK(launcher.wait() == 0);
  CHECK(launcher.out().empty());
  const auto attempt = begin(std::filesystem::directory_iterator(logs))->path() / "attempt_0";
  const std::string out = content(attempt / "filtered_stdout.log");
  INFO(out);
  for (int rank = 0; rank < 2; ++rank)
    CHECK(count_of(out, fmt::format("[default{0}]:loss {0}/2\n[default{0}]:the grad {0}/2\n", rank)) == 1);
  CHECK(count_of(out, "\n") == 4);
  CHECK(content(attempt / "filtered_stderr.log") == "[default0]:all wrong\n[default1]:all wrong\n");
  CHECK(count_of(content(attempt / "1" / "stdout.log"), "other") == 1);
}

TEST_CASE("a virtual local rank is 0 and has one device") {
  const Folder folder;
  Launcher launcher(folder, "a",
                    words(2, {"--virtual-local-rank"},
                          {"env", "LOCAL_RANK", "env", "CUDA_VISIBLE_DEVICES", "env", "RANK"}),
                    {"CUDA_VISIBLE_DEVICES=5,7"});
  CHECK(launcher.wait() == 0);
  const std::string out = launcher.out();
  INFO(out, launcher.err());
  CHECK(count_of(out, "LOCAL_RANK=0\n") == 2);
  for (const char* line : {"CUDA_VISIBLE_DEVICES=5\n", "CUDA_VISIBLE_DEVICES=7\n", "RANK=0\n", "RANK=1\n"})
    CHECK(count_of("\n" + out, fmt::format("\n{}", line)) == 1);
}

TEST_CASE("torchrun's options for Python are ignored where that does no harm, else refused with a reason") {
  const Folder folder;
  Launcher ignored(folder, "a",
                   words(1, {"--event-log-handler", "console", "--logs_specs=own"}, {"say", "up"}));
  CHECK(ignored.wait() == 0);
  CHECK(ignored.out() == "up 0/1\n");
  CHECK(contains(ignored.err(), "--event-log-handler console is ignored"));
  CHECK(contains(ignored.err(), "--logs-specs own is ignored"));
  const auto check_refused = [&](const std::vector<std::string>& options, const char* reason) {
    Launcher launcher(folder, "b", words(1, options, {"say", "up"}));
    CHECK(launcher.wait() == 2);
    CHECK(launcher.out().empty());
    INFO(launcher.err());
    CHECK(contains(launcher.err(), reason));
  };
  check_refused({"-m"}, "write -- python -m MODULE");
  check_refused({"--module"}, "write -- python -m MODULE");
  check_refused({"--run_path"}, "write -- python SCRIPT");
  check_refused({"--numa-binding", "node"}, "through numactl or taskset");
}

TEST_CASE("the launcher's own error file has the root cause") {
  const Folder folder;
  const auto file = folder / "job.json";
  const std::string variable = "TORCHELASTIC_ERROR_FILE=" + file.string();
  // The user's file is the launcher's, not a worker's: a worker has another.
  Launcher words_left(folder, "a",
                      words(2, {}, {"on", "1", "words", "out of luck", "on", "1", "exit", "7", "sleep", "60"}),
                      {variable});
  CHECK(words_left.wait() == 1);
  const std::string with_words = content(file);
  INFO(with_words);
  CHECK(contains(with_words, "\"message\":\"out of luck\""));
  CHECK(contains(with_words, "\"errorCode\":7"));
  CHECK(contains(with_words, "rank 1 (local rank 1 of node 0"));
  CHECK(read_last_words(file).message == "out of luck");

  Launcher killed(folder, "b", words(2, {}, {"on", "0", "signal", "11", "sleep", "60"}), {variable});
  CHECK(killed.wait() == 1);
  CHECK(contains(content(file), "\"errorCode\":-11"));
  CHECK(contains(read_last_words(file).message, "was killed by SIGSEGV"));

  std::filesystem::remove(file);
  Launcher fine(folder, "c", words(2, {}, {"say", "up"}), {variable});
  CHECK(fine.wait() == 0);
  CHECK(!std::filesystem::exists(file));
}

TEST_CASE("the filter hides other ranks and a template changes the prefix") {
  const Folder folder;
  Launcher hidden(folder, "a",
                  words(3, {"--local-ranks-filter", "1"}, {"say", "out", "err", "wrong"}));
  CHECK(hidden.wait() == 0);
  CHECK(hidden.out() == "out 1/3\n");
  CHECK(count_of(hidden.err(), "wrong") == 1);
  Launcher prefix(
      folder, "b",
      words(1, {"--tee", "3", "--role", "r", "--log-dir", folder.path().string()}, {"say", "out"}),
      {"TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE=<${role_name}/${rank}> "});
  CHECK(prefix.wait() == 0);
  CHECK(prefix.out() == "<r/0> out 0/1\n");
}

TEST_CASE("the last line of stderr is the reason when a worker leaves no other") {
  const Folder folder;
  Launcher launcher(folder, "a",
                    words(1, {"-r", "2", "--log-dir", folder.path().string()},
                          {"err", "first", "err", "last words", "exit", "1"}));
  CHECK(launcher.wait() == 1);
  CHECK(contains(launcher.err(), "exited with code 1: last words"));
}

TEST_CASE("longhand's own commands are run by name and their message is the root cause") {
  const Folder folder;
  Launcher launcher(folder, "a", {"--", "train", (folder / "nothing.yaml").string()});
  CHECK(launcher.wait() == 1);
  CHECK(contains(launcher.err(), "root cause: rank 0"));
  CHECK(contains(launcher.err(), "nothing.yaml"));
}

TEST_CASE("a program that is not there or options that are wrong are said at once") {
  const Folder folder;
  const auto check = [&](const std::vector<std::string>& all, int code, const std::string& text) {
    Launcher launcher(folder, "a", all);
    CHECK(launcher.wait() == code);
    INFO(launcher.err());
    CHECK(contains(launcher.err(), text));
  };
  check({"--", "no-such-program-here"}, 1, "cannot find the program");
  check({"--", (folder / "x").string()}, 1, "No such file");
  put(folder / "script", "echo hello\n");
  check({"--", (folder / "script").string()}, 1, "not executable");
  check({"--nproc-per-node", "many", "--", "true"}, 2, "expected 1 to");
  check({"--nnodes", "3:2", "--", "true"}, 2, "MIN:MAX");
  check({"--nnodes", "2", "--", "true"}, 2, "--rdzv-endpoint");
  check({"--max-restart", "2", "--", "true"}, 2, "did you mean '--max-restarts'");
  check({}, 2, "expected a program");
}

}  // namespace
