// Several launchers on one machine play several nodes: meeting, failing, getting lost, joining and
// leaving.
#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <map>
#include <set>

#include "launch/connection.h"
#include "launch/launcher.h"

namespace {

using namespace lh;
using namespace lh::test;

struct Cluster {
  explicit Cluster(std::string nodes, std::vector<std::string> more_options = {},
                   std::string configuration = "")
      : nnodes(std::move(nodes)),
        options(std::move(more_options)),
        conf(std::move(configuration)) {}

  /// The words of one node's launcher. Node 0 has the coordinator, unless the test has another
  /// wish.
  std::vector<std::string> words(int rank, const std::vector<std::string>& commands,
                                 int workers = 1) const {
    std::vector<std::string> result = {
        "--nnodes",       nnodes, "--nproc-per-node", std::to_string(workers),
        "--rdzv-backend", "c10d", "--rdzv-endpoint",  "127.0.0.1:" + std::to_string(port),
        "--rdzv-id",      "job"};
    result.insert(result.end(), {"--node-rank", std::to_string(rank), "--rdzv-conf"});
    const std::string host = rank == 0 ? "is_host=1" : "is_host=0";
    result.push_back(conf.empty() ? host : contains(conf, "is_host") ? conf : conf + "," + host);
    result.insert(result.end(), options.begin(), options.end());
    result.insert(result.end(), {"--", LH_WORKER});
    result.insert(result.end(), commands.begin(), commands.end());
    return result;
  }

  std::string nnodes;
  std::vector<std::string> options;
  std::string conf;
  int64_t port = free_port();
};

/// A socket that connects to the port, or listens there.
int raw_socket(int64_t port, bool listening) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  const int failed = listening ? ::bind(fd, generic, sizeof address) + ::listen(fd, 8)
                               : ::connect(fd, generic, sizeof address);
  REQUIRE(failed == 0);
  return fd;
}

TEST_CASE("nodes get ranks by node rank whatever the order they come in") {
  const Folder folder;
  const Cluster c("3", {}, "is_host=1");  // whoever comes first
  const std::vector<std::string> commands = {"say", "rank",        "env", "GROUP_RANK",
                                             "env", "MASTER_PORT", "env", "MASTER_ADDR"};
  Launcher last(folder, "2", c.words(2, commands, 1));
  ::usleep(100'000);
  Launcher middle(folder, "1", c.words(1, commands, 2));
  ::usleep(100'000);
  Launcher first(folder, "0", c.words(0, commands, 1));
  CHECK(first.wait() == 0);
  CHECK(middle.wait() == 0);
  CHECK(last.wait() == 0);
  INFO(first.err(), middle.err(), last.err());
  CHECK(contains(first.out(), "rank 0/4\n"));
  CHECK(contains(middle.out(), "rank 1/4\n"));
  CHECK(contains(middle.out(), "rank 2/4\n"));
  CHECK(contains(last.out(), "rank 3/4\n"));
  CHECK(count_of(middle.out(), "GROUP_RANK=1\n") == 2);
  const std::string port = first.out().substr(first.out().find("MASTER_PORT="));
  CHECK(contains(last.out(), port));
}

TEST_CASE("a failure on one node stops all within a second and each names the one root cause") {
  const Folder folder;
  const Cluster c("3");
  const auto file = (folder / "marks").string();
  const std::vector<std::string> commands = {"deaf",  "mark", file,   "up", "on",    "3",
                                             "sleep", "0.5",  "on",   "3",  "words", "wrong number",
                                             "on",    "3",    "exit", "9",  "sleep", "60"};
  Launcher a(folder, "0", c.words(0, commands, 2)), b(folder, "1", c.words(1, commands, 2)),
      d(folder, "2", c.words(2, commands, 2));
  REQUIRE(wait_for([&] { return count_of(content(file), "up") == 6; }));
  const Timer timer;
  for (Launcher* launcher : {&a, &b, &d}) CHECK(launcher->wait() == 1);
  CHECK(timer.seconds() < 0.5 + 1);
  for (const Launcher* launcher : {&a, &b, &d}) {
    INFO(launcher->err());
    CHECK(count_of(launcher->err(), "root cause: rank 3 (local rank 1 of node 1") == 1);
    CHECK(contains(launcher->err(), "exited with code 9: wrong number (5 other workers"));
  }
}

TEST_CASE("a rank that failed by itself is the cause before one that noticed and ended earlier") {
  const Folder folder;
  const Cluster c("2");
  // Rank 0 gives the other the time to become deaf.
  const std::vector<std::string> commands = {
      "deaf", "on",   "0",  "sleep", "0.5",  "on",  "0", "peer", "lost rank 1", "on", "0",   "exit", "1",
      "on",   "1",    "sleep", "0.7", "on", "1", "words", "disk full", "on", "1", "exit", "1"};
  Launcher a(folder, "0", c.words(0, commands)), b(folder, "1", c.words(1, commands));
  for (Launcher* launcher : {&a, &b}) {
    CHECK(launcher->wait() == 1);
    INFO(launcher->err());
    CHECK(count_of(launcher->err(), "root cause: rank 1 ") == 1);
    CHECK(contains(launcher->err(), "exited with code 1: disk full (1 other worker"));
  }
}

TEST_CASE("a restart is job-wide and so is its number") {
  const Folder folder;
  const Cluster c("2", {"--max-restarts", "1"});
  const auto file = (folder / "marks").string();
  const std::vector<std::string> commands = {"mark", file,  "up", "sleep", "0.3",
                                             "gen",  "0",   "on", "1",     "exit",
                                             "3",    "gen", "0",  "sleep", "60"};
  Launcher a(folder, "0", c.words(0, commands)), b(folder, "1", c.words(1, commands));
  CHECK(a.wait() == 0);
  CHECK(b.wait() == 0);
  INFO(content(file), a.err());
  for (const char* line : {"up 0 0 ", "up 1 0 ", "up 0 1 ", "up 1 1 "})
    CHECK(count_of(content(file), line) == 1);
}

TEST_CASE("a killed launcher is noticed and its job ends or goes on smaller") {
  const Folder folder;
  for (const bool elastic : {false, true}) {
    const Cluster c(elastic ? "2:3" : "3");
    const std::string name = elastic ? "elastic" : "fixed";
    const auto file = (folder / (name + ".pids")).string();
    const std::vector<std::string> commands = {"pid",   file, "gen", "0",
                                               "sleep", "60", "env", "WORLD_SIZE"};
    Launcher a(folder, name + "0", c.words(0, commands)),
        b(folder, name + "1", c.words(1, commands)), d(folder, name + "2", c.words(2, commands));
    REQUIRE(wait_for([&] { return pids_in(file).size() == 3; }));
    const auto before = pids_in(file);
    const Timer timer;
    b.signal(SIGKILL);
    CHECK(a.wait() == (elastic ? 0 : 1));
    CHECK(d.wait() == (elastic ? 0 : 1));
    INFO(a.err());
    CHECK(contains(a.err(), "node 1 ("));
    CHECK(contains(a.err(), "was lost"));
    if (!elastic) CHECK(timer.seconds() < 1.5);
    if (elastic) CHECK(a.out() == "WORLD_SIZE=2\n");
    // The killed launcher's guard ends its workers while the other nodes end theirs: within a second.
    for (const pid_t pid : before) CHECK(wait_for([&] { return !alive(pid); }, 1));
  }
}

TEST_CASE("a launcher that is stopped loses its lease and its workers before others start") {
  const Folder folder;
  const Cluster c("1:2", {}, "keep_alive_interval=0.4,keep_alive_max_attempt=3");
  const auto file = (folder / "marks").string();
  const auto pids = (folder / "pids").string();
  const std::vector<std::string> commands = {"pid", pids, "mark",  file, "up",
                                             "gen", "0",  "sleep", "60"};
  Launcher a(folder, "0", c.words(0, commands)), b(folder, "1", c.words(1, commands));
  REQUIRE(wait_for([&] { return count_of(content(file), "up") == 2; }));
  const auto before = pids_in(pids);
  b.signal(SIGSTOP);
  REQUIRE(wait_for([&] { return count_of(content(file), "up 0 1 ") == 1; }));
  for (const pid_t pid : before) CHECK(!alive(pid));  // no two generations at once
  CHECK(a.wait() == 0);
  CHECK(contains(a.err(), "nothing heard from it for 1.2 s"));
  b.signal(SIGCONT);
  CHECK(b.wait() == 1);
  INFO(b.err());
  CHECK(contains(b.err(), "lost the coordinator"));
}

TEST_CASE("when the coordinator's launcher dies every node stops and says so") {
  const Folder folder;
  const Cluster c("2");
  const auto file = (folder / "pids").string();
  const std::vector<std::string> commands = {"deaf", "pid", file, "sleep", "60"};
  Launcher a(folder, "0", c.words(0, commands));
  Launcher b(folder, "1", c.words(1, commands));
  REQUIRE(wait_for([&] { return pids_in(file).size() == 2; }));
  const Timer timer;
  a.signal(SIGKILL);
  a.wait();
  CHECK(b.wait() == 1);
  CHECK(timer.seconds() < 2);
  CHECK(contains(b.err(), "lost the coordinator at 127.0.0.1"));
  for (const pid_t pid : pids_in(file)) CHECK(!alive(pid));
}

TEST_CASE("another job, other options and a taken node rank are refused and disturb nobody") {
  const Folder folder;
  const Cluster c("2");
  const std::vector<std::string> commands = {"sleep", "1", "say", "rank"};
  Launcher a(folder, "0", c.words(0, commands));
  ::usleep(300'000);
  const auto refused = [&](const std::string& name, std::vector<std::string> words,
                           const std::string& why) {
    Launcher other(folder, name, std::move(words));
    CHECK(other.wait() == 1);
    INFO(other.err());
    CHECK(contains(other.err(), why));
  };
  auto words = c.words(1, commands);
  *std::find(words.begin(), words.end(), "job") = "another";
  refused("x", words, "this is the coordinator of job 'job', not of 'another'");
  words = c.words(1, commands);
  words.insert(words.begin(), {"--max-restarts", "3"});
  refused("y", words, "give every node the same");
  refused("z", c.words(0, commands), "--node-rank 0 is taken by");
  Launcher b(folder, "1", c.words(1, commands));
  CHECK(a.wait() == 0);
  CHECK(b.wait() == 0);
  CHECK(b.out() == "rank 1/2\n");
}

TEST_CASE("a launcher whose place is taken does not pass for one whose job is done") {
  const Folder folder;
  const std::vector<std::string> commands = {"sleep", "1", "say", "rank"};
  {
    const Cluster c("1");  // a job of one node, and another one at its endpoint
    Launcher a(folder, "own", c.words(0, commands));
    ::usleep(300'000);
    Launcher b(folder, "other", c.words(-1, commands));
    CHECK(b.wait() == 1);
    CHECK(contains(b.err(), "here runs job 'job' of one node, started on "));
    CHECK(contains(b.err(), "give every job its own endpoint"));
    CHECK(a.wait() == 0);
  }
  const Cluster c("2");
  Launcher a(folder, "0", c.words(0, commands)), b(folder, "1", c.words(1, commands));
  ::usleep(500'000);
  Launcher spare(folder, "2", c.words(-1, commands));
  CHECK(a.wait() == 0);
  CHECK(b.wait() == 0);
  CHECK(spare.wait() == 1);
  CHECK(spare.out().empty());
  CHECK(contains(spare.err(), "has all its nodes: waiting as a spare"));
  CHECK(contains(spare.err(), "the workers of this launcher never ran"));
}

TEST_CASE("a wrong or busy endpoint and missing nodes are said clearly") {
  const Folder folder;
  const Cluster slow("2", {}, "join_timeout=1");
  Launcher alone(folder, "a", slow.words(0, {}));
  CHECK(alone.wait() == 1);
  CHECK(contains(alone.err(), "rendezvous: 1 of 2 nodes after 1 s"));

  const Cluster nobody("2", {}, "join_timeout=1,is_host=0");
  Launcher lost(folder, "b", nobody.words(0, {}));
  CHECK(lost.wait() == 1);
  CHECK(contains(
      lost.err(),
      fmt::format("no coordinator at 127.0.0.1:{} after 1 s: Connection refused", nobody.port)));

  Launcher nowhere(folder, "c",
                   {"--nnodes", "2", "--rdzv-conf", "join_timeout=1", "--rdzv-endpoint",
                    "no-such-host.invalid:29400", "--", "true"});
  CHECK(nowhere.wait() == 1);
  CHECK(contains(nowhere.err(), "host 'no-such-host.invalid'"));

  const Cluster busy("2");
  const int listener = raw_socket(busy.port, true);
  Launcher waiting(folder, "d", busy.words(0, {}));
  const int client = ::accept(listener, nullptr, nullptr);
  REQUIRE(::send(client, "SSH-2.0-OpenSSH_9.2\r\n", 21, 0) == 21);
  CHECK(waiting.wait() == 1);
  INFO(waiting.err());
  CHECK(contains(waiting.err(), "is no coordinator of longhand launch"));
  ::close(client);
  ::close(listener);
}

TEST_CASE("garbage on the port does not disturb the job") {
  const Folder folder;
  const Cluster c("2");
  const auto file = (folder / "marks").string();
  const std::vector<std::string> commands = {"mark", file, "up", "sleep", "1", "say", "done"};
  Launcher a(folder, "0", c.words(0, commands)), b(folder, "1", c.words(1, commands));
  REQUIRE(wait_for([&] { return count_of(content(file), "up") == 2; }));
  std::vector<int> sockets;
  for (int i = 0; i < 300; ++i) {
    const int fd = raw_socket(c.port, false);
    const std::string text = i % 3 == 0   ? "GET / HTTP/1.1\r\n\r\n"
                             : i % 3 == 1 ? std::string("LHL1\xff\xff\xff\xff", 8)
                                          : "LHL1";
    CHECK(::send(fd, text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size()));
    sockets.push_back(fd);
  }
  CHECK(a.wait() == 0);
  CHECK(b.wait() == 0);
  for (const int fd : sockets) ::close(fd);
}

TEST_CASE("a signal to one node saves on all") {
  const Folder folder;
  const Cluster c("2");
  const auto file = (folder / "marks").string();
  const std::vector<std::string> commands = {"save", "0.3", "75",    "mark",
                                             file,   "up",  "sleep", "60"};
  for (const int signalled : {0, 1}) {
    std::filesystem::remove(file);
    Launcher a(folder, "0", c.words(0, commands)), b(folder, "1", c.words(1, commands));
    REQUIRE(wait_for([&] { return count_of(content(file), "up") == 2; }));
    (signalled == 0 ? a : b).signal(SIGTERM);
    CHECK(a.wait() == 75);
    CHECK(b.wait() == 75);
    INFO(a.err(), b.err());
    CHECK(contains((signalled == 0 ? b : a).err(), "stopping: SIGTERM on"));
  }
}

TEST_CASE("a late node joins and a leaving one leaves without a restart being used") {
  const Folder folder;
  const Cluster c("1:2", {}, "last_call_timeout=0.2");
  const auto file = (folder / "marks").string();
  const std::vector<std::string> commands = {"save",  "0.1", "75",    "mark",      file,  "up",
                                             "gen",   "0",   "sleep", "60",        "gen", "1",
                                             "sleep", "60",  "env",   "WORLD_SIZE"};
  Launcher a(folder, "0", c.words(0, commands));
  REQUIRE(wait_for([&] { return count_of(content(file), "up 0 0") == 1; }));
  Launcher b(folder, "1", c.words(1, commands));
  REQUIRE(wait_for([&] { return count_of(content(file), "up 1 1") == 1; }));
  REQUIRE(wait_for([&] { return count_of(content(file), "up 0 1") == 1; }));
  b.signal(SIGTERM);
  CHECK(b.wait() == 75);
  CHECK(a.wait() == 0);
  INFO(a.err());
  CHECK(a.out() == "WORLD_SIZE=1\n");
  CHECK(contains(a.err(), "a node joined"));
  CHECK(contains(a.err(), "a node left"));
}

bool run(const std::string& command) {
  return std::system((command + " >/dev/null 2>&1").c_str()) == 0;
}

TEST_CASE("a link that drops packets stops both sides") {
  const std::string id = std::to_string(::getpid() % 10000);
  const std::string space = "lh" + id, here = "lha" + id, there = "lhb" + id;
  if (!run("ip netns add " + space)) {
    MESSAGE("skipped: network namespaces need root and the ip program");
    return;
  }
  struct Remove {
    std::string space, here;
    ~Remove() {
      run("ip link del " + here);
      run("ip netns del " + space);
    }
  } const remove{space, here};
  const std::string net = fmt::format("10.213.{}.", ::getpid() % 250);
  if (!run("ip link add " + here + " type veth peer name " + there) ||
      !run("ip link set " + there + " netns " + space)) {
    MESSAGE("skipped: no veth devices here");
    return;
  }
  REQUIRE(run("ip addr add " + net + "1/24 dev " + here));
  REQUIRE(run("ip link set " + here + " up"));
  REQUIRE(run("ip -n " + space + " addr add " + net + "2/24 dev " + there));
  REQUIRE(run("ip -n " + space + " link set " + there + " up"));

  const Folder folder;
  const auto pids = (folder / "pids").string();
  const std::vector<std::string> words = {"--nnodes",
                                          "2",
                                          "--rdzv-endpoint",
                                          net + "1:29411",
                                          "--max-restarts",
                                          "0",
                                          "--",
                                          LH_WORKER,
                                          "deaf",
                                          "env",
                                          "MASTER_ADDR",
                                          "pid",
                                          pids,
                                          "sleep",
                                          "60"};
  Launcher a(folder, "a", words), b(folder, "b", words, {}, {"ip", "netns", "exec", space});
  REQUIRE(wait_for([&] { return pids_in(pids).size() == 2; }));
  REQUIRE(run("ip link set " + here + " down"));
  const Timer timer;
  CHECK(a.wait() == 1);
  CHECK(b.wait() == 1);
  CHECK(timer.seconds() < 3 + 2);
  INFO(a.err(), b.err());
  CHECK(contains(a.err(), "was lost: nothing heard from it for 3.0 s"));
  CHECK(contains(b.err(), "lost the coordinator at " + net + "1:29411: nothing heard from it"));
  CHECK(contains(b.out(), "MASTER_ADDR=" + net));
  for (const pid_t pid : pids_in(pids)) CHECK(!alive(pid));
}

}  // namespace
