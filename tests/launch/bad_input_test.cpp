// Mistakes of whoever starts a job of several processes, under the launcher and by hand: one message from one process,
// the documented exit code, soon, and nothing left behind.
#include <doctest/doctest.h>
#include <sys/socket.h>

#include <thread>

#include "launch/training_jobs.h"

namespace {

using namespace lh;
using namespace lh::test;
namespace fs = std::filesystem;

/// check_one_message, of a job that has not begun.
void check_mistake(const Folder& folder, const End& end, int code, const Words& parts, bool launched = false) {
  check_one_message(folder, end, code, parts, launched);
  CHECK(!fs::exists(folder / "run"));
}

/// The same mistake under the launcher and by hand.
void check_both(const Folder& folder, int size, const Words& more, int code, const Words& parts) {
  const Words words = train(folder, more);
  const End launched =
      under_launcher(folder, {"--standalone", "--nproc-per-node", std::to_string(size)}, words);
  check_mistake(folder, launched, 1, parts, true);
  const End hand = by_hand(folder, size, [&](int) { return words; });
  check_mistake(folder, hand, code, parts);
  CHECK(launched.seconds < 15);
  CHECK(hand.seconds < 15);
}

TEST_CASE("a mesh that does not fill the job and other wrong recipes are told once") {
  const Folder folder;
  prepare(folder);
  check_both(folder, 3, {"--set", "parallel.context=2"}, 2,
             {"parallel: 3 processes do not make whole groups of parallel.context 2", "start a multiple of 2"});
  check_both(folder, 3, {"--set", "parallel.data=2"}, 2,
             {"parallel: 3 processes do not make parallel.data 2 groups", "start 2 processes"});
  check_both(folder, 4, {"--set", "parallel.context=4", "--set", "model.mixers.full.context=heads"}, 2,
             {"expected num_heads 4 and num_kv_heads 2 to be multiples of parallel.context 4",
              "set parallel.context to a divisor of 2, or context to gather"});
  check_both(folder, 3, {"--set", "schedule.batch_tokens=256", "--set", "precision.micro_batch_tokens=0"}, 2,
             {"schedule.batch_tokens: a step of 2 sequences cannot feed 3 data groups", "raise"});
  check_both(folder, 2, {"--set", "optim.lerning_rate=1"}, 2, {"optim.lerning_rate", "did you mean 'learning_rate'"});
  check_both(folder, 2, {"--set", "data.train=[{path: " + (folder / "none.h5").string() + "}]"}, 2,
             {"no such file: ", "none.h5"});
}

TEST_CASE("a rank with another recipe, another number of processes or somebody else's rank") {
  const Folder folder;
  prepare(folder);
  const Words words = train(folder);
  // What differs is named with its key and both values.
  const std::string line = fmt::format(
      "if [ $RANK = 1 ]; then exec \"$@\" --set optim.learning_rate=0.5; else exec \"$@\"; fi");
  const Words parts = {"the recipe of rank 1 (host ", "is not that of rank 0: 'optim.learning_rate: 0.5' here, "
                       "'optim.learning_rate: 0.003' at rank 0"};
  check_mistake(folder,
                under_launcher(folder, {"--standalone", "--nproc-per-node", "3"},
                               Words{"sh", "-c", line, "sh", LH_BINARY} + words),
                1, parts, true);
  check_mistake(folder, by_hand(folder, 3, [&](int r) {
                  return r == 1 ? words + Words{"--set", "optim.learning_rate=0.5"} : words;
                }), 2, parts);
  check_mistake(folder, by_hand(folder, 3, [&](int r) {
                  return r == 2 ? words + Words{"--set", "parallel.context=3"} : words;
                }), 2, {"'parallel.context: 3' here, 'parallel.context: 1' at rank 0"});
  // Only one of them has another file.
  put(folder / "other.yaml", "run: [");
  check_mistake(folder, by_hand(folder, 3, [&](int r) {
                  Words own = words;
                  if (r == 2) own[1] = (folder / "other.yaml").string();
                  return own;
                }), 2, {"other.yaml"});
  check_mistake(folder, by_hand(folder, 2, [&](int) { return words; },
                                [](int r) { return r == 1 ? Words{"WORLD_SIZE=3", "LOCAL_WORLD_SIZE=3"} : Words{}; }),
                2, {"the program of rank 1 (host ", "'WORLD_SIZE 3' here, 'WORLD_SIZE 2' at rank 0"});
  check_mistake(folder, by_hand(folder, 3, [&](int) { return words; },
                                [](int r) {
                                  return Words{"LH_COMM_TIMEOUT=2", r == 2 ? "RANK=1" : "A=B"};
                                }),
                2, {"rank 1 (host ", "has come already", "its own RANK"});
}

TEST_CASE("a rank with a program of another version") {
  const Folder folder;
  prepare(folder);
  const Words words = train(folder);
  const Words parts = {"the program of rank 1 (host ",
                       "is not that of rank 0: 'longhand 0.0.1' here, 'longhand ", "all processes need the same"};
  const std::string line = "if [ $RANK = 1 ]; then shift; else set -- \"$1\" \"${@:3}\"; fi; exec \"$@\"";
  check_mistake(folder,
                under_launcher(folder, {"--standalone", "--nproc-per-node", "3"},
                               Words{"bash", "-c", line, "bash", LH_BINARY, LH_OTHER_VERSION} + words),
                1, parts, true);
  check_mistake(folder,
                by_hand(folder, 3, [&](int r) { return r == 1 ? Words{LH_OTHER_VERSION} + words : words; }), 2, parts);
}

TEST_CASE("ranks that would compute differently") {
  const Folder folder;
  prepare(folder);
  const Words words = train(folder, {"--set", "precision.compute=auto", "--set", "run.device=cpu"});
  const End probe = by_hand(folder, 1, [](int) { return Words{"doctor"}; });
  // Leaving out instructions changes the dtype only where auto means bf16.
  if (count_of(probe.output, "precision: auto   bf16") == 0) {
    MESSAGE("SKIPPED: this CPU computes in f32 whatever it is told to leave out");
    return;
  }
  check_mistake(folder,
                by_hand(folder, 2, [&](int) { return words; },
                        [](int r) { return r == 1 ? Words{"LH_NO_AMX=1", "LH_SIMD=avx2"} : Words{}; }),
                2, {"the device of rank 1 (host ", "'precision.compute: f32' here, 'precision.compute: bf16' at rank 0"});
}

TEST_CASE("a busy port") {
  const Folder folder;
  prepare(folder);
  const Socket busy = Socket::listen("", 0);  // and never answers
  const std::string port = std::to_string(busy.port());
  const Words words = train(folder), patience = {"LH_COMM_TIMEOUT=2"};
  const Words parts = {"cannot listen on ", port, "Address already in use", "choose another (MASTER_PORT)"};
  const End launched = under_launcher(
      folder, {"--nproc-per-node", "2", "--master-addr", "127.0.0.1", "--master-port", port}, words, patience);
  check_mistake(folder, launched, 1, parts, true);
  const End hand = by_hand(folder, 2, [&](int) { return words; }, [&](int) { return patience; }, busy.port());
  check_mistake(folder, hand, 1, parts);
  CHECK(hand.seconds < 12);
  // Where the launchers meet, another program answers.
  Socket other = Socket::listen("127.0.0.1", 0);
  std::jthread answering([&] {
    std::vector<Socket> clients;
    for (int fd; (fd = ::accept(other.fd(), nullptr, nullptr)) >= 0;) {
      clients.emplace_back(fd);
      clients.back().write("SSH-2.0-OpenSSH_9.2\r\n", 21, after(std::chrono::seconds(1)));
    }
  });
  const End meeting = under_launcher(
      folder, {"--nnodes", "1:2", "--rdzv-endpoint", fmt::format("127.0.0.1:{}", other.port())}, words);
  other.shut_down();
  CAPTURE(meeting.output);
  CHECK(meeting.codes[0] == 1);
  CHECK(count_of(meeting.output, "error: ") == 1);
  CHECK(contains(meeting.output, "choose another port for --rdzv-endpoint"));
}

TEST_CASE("a wrong host") {
  const Folder folder;
  prepare(folder);
  const Words words = train(folder);
  const auto at = [](const std::string& host) {
    return [=](int) { return Words{"MASTER_ADDR=" + host, "LH_COMM_TIMEOUT=2"}; };
  };
  check_mistake(folder, by_hand(folder, 2, [&](int) { return words; }, at("no-such-host.invalid")), 1,
                {"no-such-host.invalid", "does not lead to this host, where rank 0 is", "set MASTER_ADDR"});
  // An address that nobody has (RFC 5737) stands for another machine's.
  check_mistake(folder, by_hand(folder, 2, [&](int) { return words; }, at("192.0.2.1")), 1,
                {"192.0.2.1", "does not lead to this host, where rank 0 is", "set MASTER_ADDR"});
  // An address of this machine where nobody listens stands for a host that is not rank 0's: rank 0 is at another port.
  const End nobody = by_hand(folder, 2, [&](int) { return words; }, [](int r) {
    return r == 0 ? Words{"LH_COMM_TIMEOUT=2"} : Words{"MASTER_PORT=1", "LH_COMM_TIMEOUT=2"};
  });
  check_mistake(folder, nobody, 1, {"rank 1 of 2 processes did not come to 127.0.0.1:", "within 2 s (LH_COMM_TIMEOUT)"});
  CHECK(nobody.seconds < 8);
  // A launcher that cannot find the coordinator.
  for (const std::string& host : {std::string("no-such-host.invalid"), std::string("127.0.0.1")}) {
    const End end = under_launcher(folder, {"--nnodes", "2", "--rdzv-endpoint", host + ":1", "--rdzv-conf",
                                            "join_timeout=2,is_host=0"}, words);
    CAPTURE(end.output);
    CHECK(end.codes[0] == 1);
    CHECK(count_of(end.output, "error: ") == 1);
    CHECK(contains(end.output, "no coordinator at " + host + ":1 after 2 s"));
  }
}

TEST_CASE("a signal ends the wait for the others") {
  const Folder folder;
  prepare(folder);
  fs::remove(folder / "ranks.log");
  Rank first(folder, 0, 3, a_free_port(), train(folder)), lost(folder, 1, 3, 1, train(folder));
  ::usleep(1'500'000);
  for (Rank* rank : {&first, &lost}) {
    ::kill(rank->pid(), SIGTERM);
    CHECK(rank->wait(5) == 75);
  }
  CHECK(contains(content(folder / "ranks.log"), "stopped before all processes had met"));
}

TEST_CASE("data shorter than a step is said once and trained on again and again") {
  const Folder folder;
  prepare(folder, 30);
  const Words words = train(folder, {"--set", "schedule.steps=2", "--set", "schedule.warmup_steps=0", "--set",
                                     "checkpoint.every_steps=0"});
  const End end = under_launcher(folder, {"--standalone", "--nproc-per-node", "3"}, words);
  CAPTURE(end.output);
  CHECK(end.codes[0] == 0);
  CHECK(count_of(end.output, "data.train.0") == 1);
  CHECK(contains(end.output, "of the 1024 tokens of a step"));
}

}  // namespace
