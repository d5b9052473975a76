// Several hosts on one machine: network namespaces behind a router, with names of their own. All of
// it lives in namespaces that end with the test, processes included.
#pragma once

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "launch/launcher.h"

namespace lh::test {

inline bool run_quietly(const std::string& command) {
  return std::system((command + " >/dev/null 2>&1").c_str()) == 0;
}

/// Runs the calling test case again, as process 1 of PID, network, mount and host name namespaces
/// of its own, so that nothing of it outlives it or touches the machine. True in that second run;
/// false in the first, once it has ended well. `name` is the case's and has no comma.
inline bool in_own_namespaces(const std::string& name) {
  if (std::getenv("LH_OWN_NAMESPACES") != nullptr) return true;
  const std::string unshare = "unshare --pid --fork --kill-child --mount-proc --net --mount --uts ";
  if (!run_quietly(unshare + "sh -c 'mount -t tmpfs none /run && ip link set lo up && "
                             "ip netns add x && ip link add lh0 type veth peer name lh1'")) {
    MESSAGE("skipped: namespaces and veth devices need root, a kernel that has them, and the "
            "programs unshare, mount and ip");
    return false;
  }
  ::setenv("LH_OWN_NAMESPACES", "1", 1);
  const std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
  const int code = std::system((unshare + "'" + self + "' '-tc=" + name + "'").c_str());
  ::unsetenv("LH_OWN_NAMESPACES");
  CHECK(code == 0);
  return false;
}

struct Process {
  pid_t pid = 0;
  std::vector<std::string> words;
};

/// Host i has the address 10.77.i.2 and the name node<i>. Only inside in_own_namespaces().
class Hosts {
 public:
  explicit Hosts(int count) : count_(count) {
    REQUIRE(run_quietly("mount -t tmpfs none /run"));  // ip netns keeps its names there
    REQUIRE(run_quietly("ip link set lo up"));
    ::unsetenv("LH_HOST");  // each host finds its own address
    REQUIRE(run_quietly("(echo 1 > /proc/sys/net/ipv4/ip_forward)"));
    for (int i = 0; i < count; ++i)
      for (const std::string& words :
           {fmt::format("netns add h{}", i), fmt::format("link add v{0} type veth peer name w{0}", i),
            fmt::format("link set w{0} netns h{0}", i), fmt::format("addr add 10.77.{0}.1/24 dev v{0}", i),
            fmt::format("link set v{} up", i), fmt::format("-n h{} link set lo up", i),
            fmt::format("-n h{0} addr add 10.77.{0}.2/24 dev w{0}", i),
            fmt::format("-n h{0} link set w{0} up", i),
            fmt::format("-n h{0} route add default via 10.77.{0}.1", i)})
        REQUIRE_MESSAGE(run_quietly("ip " + words), words);
  }

  int count() const { return count_; }
  static std::string address(int host) { return fmt::format("10.77.{}.2", host); }

  /// What to put before a command so that it runs on the host.
  static std::vector<std::string> on(int host) {
    return {"ip", "netns", "exec", fmt::format("h{}", host), "unshare", "--uts", "sh", "-c",
            fmt::format("hostname node{}; exec \"$@\"", host), "sh"};
  }

  /// The host's cable: while it is out, packets to and from the host vanish.
  static void plug(int host, bool in) {
    REQUIRE(run_quietly(fmt::format("ip link set v{} {}", host, in ? "up" : "down")));
  }

  /// A slow way to the host: late packets, or few where the kernel can't delay them. False when it
  /// can do neither.
  static bool slow_down(int host) {
    const std::string root = fmt::format("tc qdisc add dev v{} root ", host);
    return run_quietly(root + "netem delay 60ms 20ms") ||
           run_quietly(root + "tbf rate 600kbit burst 8kb latency 300ms");
  }
  static void speed_up(int host) { run_quietly(fmt::format("tc qdisc del dev v{} root", host)); }

  /// Power failure: the cable first, so that nobody gets a word of farewell.
  static void cut_power(int host) {
    plug(host, false);
    for (bool any = true; any;) {
      any = false;
      for (const Process& process : processes(host)) any |= ::kill(process.pid, SIGKILL) == 0;
    }
  }

  /// Living processes on the host.
  static std::vector<Process> processes(int host) {
    const std::string home = net_of("/run/netns/" + fmt::format("h{}", host));
    std::vector<Process> result;
    for (Process& process : all_processes())
      if (net_of(fmt::format("/proc/{}/ns/net", process.pid)) == home)
        result.push_back(std::move(process));
    return result;
  }

  /// Living processes besides this one, on all hosts.
  static std::vector<Process> all_processes() {
    std::vector<Process> result;
    for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
      const pid_t pid = std::atoi(entry.path().filename().c_str());
      if (pid <= 0 || pid == ::getpid() || !alive(pid)) continue;
      Process process{pid, {}};
      std::istringstream words(content(entry.path() / "cmdline"));
      for (std::string word; std::getline(words, word, '\0');) process.words.push_back(word);
      result.push_back(std::move(process));
    }
    return result;
  }

 private:
  /// Identity of a network namespace.
  static std::string net_of(const std::string& path) {
    struct stat info {};
    return ::stat(path.c_str(), &info) == 0 ? fmt::format("{}", info.st_ino) : "";
  }
  int count_;
};

}  // namespace lh::test
