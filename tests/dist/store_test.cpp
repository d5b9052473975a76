// The job's store: its calls, and all that may be on the other end of a socket.
#include <doctest/doctest.h>

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fmt/format.h>

#include <random>
#include <thread>

#include "base/timer.h"
#include "dist/comm_error.h"
#include "dist/socket.h"
#include "dist/tcp_store.h"

using namespace lh;
using namespace std::chrono_literals;

namespace {

void exercise(Store& a, Store& b) {
  CHECK(!a.find("k").has_value());
  a.set("k", std::string("x\0y", 3));
  CHECK(b.find("k") == std::string("x\0y", 3));
  CHECK(b.set_once("k", "other") == std::string("x\0y", 3));
  CHECK(b.set_once("new", "first") == "first");
  CHECK(a.set_once("new", "second") == "first");
  a.set("empty", "");
  CHECK(b.get("empty", 10ms).empty());
  std::jthread later([&] {
    std::this_thread::sleep_for(50ms);
    a.set("late", std::string(100000, 'z'));
  });
  CHECK(b.get("late", 5000ms).size() == 100000);
  CHECK_THROWS_WITH_AS(b.get("never", 30ms), doctest::Contains("'never'"), CommError);
}

}  // namespace

TEST_CASE("stores keep values, the first of several writers wins, and waiting ends") {
  const auto memory = make_memory_store();
  exercise(*memory, *memory);
  const auto view = make_prefix_store(memory, "a/");
  exercise(*view, *view);
  CHECK(memory->find("a/new") == "first");
  TcpStoreServer server({"127.0.0.1", 0});
  const auto one = connect_tcp_store({"127.0.0.1", server.port()}, 2000ms);
  const auto two = connect_tcp_store({"127.0.0.1", server.port()}, 2000ms);
  exercise(*one, *two);
}

TEST_CASE("a server on all addresses is reached by both versions of the protocol") {
  const TcpStoreServer server({"", 0});
  connect_tcp_store({"127.0.0.1", server.port()}, 2000ms)->set("a", "1");
  const Endpoint sixth{"::1", server.port()};
  CHECK(sixth.str() == fmt::format("[::1]:{}", server.port()));
  const int probe = ::socket(AF_INET6, SOCK_STREAM, 0);
  sockaddr_in6 loopback{};
  loopback.sin6_family = AF_INET6;
  loopback.sin6_addr = in6addr_loopback;
  const bool there = probe >= 0 && ::bind(probe, reinterpret_cast<sockaddr*>(&loopback), sizeof loopback) == 0;
  if (probe >= 0) ::close(probe);
  if (!there) {  // a kernel without IPv6 can't be reached by it; version 4 is checked above
    MESSAGE("SKIPPED: this machine has no ::1");
    return;
  }
  CHECK(connect_tcp_store(sixth, 2000ms)->find("a") == "1");
}

TEST_CASE("a busy port, a closed port and an unknown host say what to do") {
  TcpStoreServer server({"127.0.0.1", 0});
  CHECK_THROWS_WITH_AS(TcpStoreServer({"127.0.0.1", server.port()}), doctest::Contains("choose another"),
                       CommError);
  const Timer timer;
  CHECK_THROWS_WITH_AS(connect_tcp_store({"127.0.0.1", 1}, 300ms),
                       doctest::Contains("127.0.0.1:1 within 0.3 s"), CommError);
  CHECK_THROWS_WITH_AS(connect_tcp_store({"no-such-host.invalid", 1}, 300ms),
                       doctest::Contains("no-such-host.invalid"), CommError);
  CHECK(timer.seconds() < 30);
}

TEST_CASE("another program and another version are told apart") {
  Socket listener = Socket::listen("127.0.0.1", 0);
  for (const char* greeting : {"SSH-2.0-OpenSSH_9.2p1", "longhand store 7"}) {
    std::jthread server([&] {
      Socket client(::accept(listener.fd(), nullptr, nullptr));
      client.write(greeting, 16, after(1000ms));
      char byte;
      while (client.read(&byte, 1, after(1000ms))) continue;
    });
    const bool ours = greeting[0] == 'l';
    CHECK_THROWS_WITH_AS(connect_tcp_store({"127.0.0.1", listener.port()}, 1000ms),
                         doctest::Contains(ours ? "version 7" : "another program"), CommError);
  }
}

TEST_CASE("what a port scanner sends disturbs nobody") {
  TcpStoreServer server({"127.0.0.1", 0});
  const auto store = connect_tcp_store({"127.0.0.1", server.port()}, 2000ms);
  std::mt19937 random(1);
  constexpr char kGreeting[] = "longhand store 1";
  for (int round = 0; round < 2000; ++round) {
    Socket scanner = Socket::connect("127.0.0.1", server.port(), after(2000ms));
    std::string bytes(random() % 64, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random());
    try {
      if (round % 2 == 0) scanner.write(kGreeting, 16, after(1000ms));
      if (round % 3 == 0 && !bytes.empty()) bytes[0] = "sfo"[random() % 3];
      scanner.write(bytes.data(), bytes.size(), after(1000ms));
    } catch (const CommError&) {
      // It hung up already.
    }
    if (round % 500 == 0) {
      store->set("round", std::to_string(round));
      CHECK(store->find("round") == std::to_string(round));
    }
  }
}

TEST_CASE("a store whose server is gone says so") {
  auto server = std::make_unique<TcpStoreServer>(Endpoint{"127.0.0.1", 0});
  const Endpoint endpoint{"127.0.0.1", server->port()};
  const auto store = connect_tcp_store(endpoint, 2000ms);
  server.reset();
  CHECK_THROWS_WITH_AS(store->set("a", "b"), doctest::Contains("is gone"), CommError);
}
