// The coordinator's decisions, with made-up nodes and a made-up clock.
#include <doctest/doctest.h>

#include <algorithm>
#include <map>

#include "base/philox.h"
#include "launch/job.h"
#include "support/folder.h"

namespace {

using namespace lh;
using namespace lh::test;

/// A job whose nodes do what the test says; everything the job sends them is kept.
struct World {
  explicit World(JobOptions o) : options(std::move(o)), job(options, 0) {}

  void join(int64_t id, const std::string& host = "h", int64_t rank = -1, int64_t workers = 2,
            const std::string& job_id = "j") {
    job.receive(id, "peer",
                Message("hello")
                    .with("job", job_id)
                    .with("host", host)
                    .with("launcher", fmt::format("launcher{}", id))
                    .with("address", fmt::format("10.0.0.{}", id))
                    .with("pid", int64_t{100 + id})
                    .with("workers", workers)
                    .with("node_rank", rank)
                    .with("min_nodes", options.min_nodes)
                    .with("max_nodes", options.max_nodes)
                    .with("max_restarts", options.max_restarts),
                now);
    alive.push_back(id);
    deliver();
  }
  void say(int64_t id, Message message) {
    job.receive(id, "peer", message, now);
    deliver();
  }
  void failed(int64_t id, int64_t generation, int64_t rank, double age = 0, int signal = 0,
              bool consequence = false, bool late = false) {
    const Failure f{.host = "h",
                    .node = 0,
                    .rank = rank,
                    .local_rank = 0,
                    .exit_code = signal == 0 ? 1 : 0,
                    .signal = signal,
                    .message = "",
                    .consequence = consequence};
    Message m("failed");
    put_failure(m, f);
    say(id, m.with("generation", generation).with("age", age).with("late", int64_t{late}));
  }
  void ended(int64_t id, int64_t generation, int64_t ok, int64_t saved, int64_t other) {
    say(id, Message("ended")
                .with("generation", generation)
                .with("ok", ok)
                .with("saved", saved)
                .with("other", other));
  }
  void hang_up(int64_t id) {
    std::erase(alive, id);
    job.closed(id, now);
    deliver();
  }
  /// Lets time pass; nodes in `alive` keep beating.
  void pass(double seconds) {
    for (const double end = now + seconds; now < end;) {
      now += 0.1;
      for (const int64_t id : std::vector<int64_t>(alive))
        job.receive(id, "peer", Message("beat"), now);
      job.tick(now);
      deliver();
    }
  }
  void deliver() {
    for (auto outputs = job.take_output(); !outputs.empty(); outputs = job.take_output())
      for (const auto& out : outputs) {
        if (out.message.kind != "beat") sent[out.to].push_back(out.message);
        if (out.close_after) std::erase(alive, out.to);
        if (out.message.kind == "pick_port" && answer_ports)
          job.receive(out.to, "peer",
                      Message("port")
                          .with("generation", out.message.number("generation"))
                          .with("port", int64_t{25000}),
                      now);
      }
  }
  /// The last message of a kind to a node, and how many there were.
  const Message* last(int64_t id, const std::string& kind) {
    const Message* found = nullptr;
    for (const Message& m : sent[id])
      if (m.kind == kind) found = &m;
    return found;
  }
  size_t count(int64_t id, const std::string& kind) {
    return static_cast<size_t>(std::count_if(sent[id].begin(), sent[id].end(),
                                             [&](const Message& m) { return m.kind == kind; }));
  }
  int64_t generation(int64_t id) {
    return last(id, "start") == nullptr ? -1 : last(id, "start")->number("generation");
  }

  JobOptions options;
  double now = 0;
  bool answer_ports = true;
  std::vector<int64_t> alive;
  std::map<int64_t, std::vector<Message>> sent;
  Job job;
};

JobOptions nodes(int64_t low, int64_t high, int64_t restarts = 0) {
  return {.job_id = "j",

          .launcher = "launcher1",
          .min_nodes = low,
          .max_nodes = high,
          .max_restarts = restarts};
}

TEST_CASE("the job starts at once when all are there with ranks in natural order of hosts") {
  World w(nodes(3, 3));
  w.join(1, "gpu10");
  w.join(2, "gpu9", -1, 4);
  CHECK(w.last(1, "start") == nullptr);
  w.join(3, "gpu1");
  CHECK(w.last(3, "start")->number("first_rank") == 0);
  CHECK(w.last(2, "start")->number("first_rank") == 2);
  CHECK(w.last(1, "start")->number("first_rank") == 6);
  for (const int64_t id : {1, 2, 3}) {
    CHECK(w.last(id, "start")->number("world_size") == 8);
    CHECK(w.last(id, "start")->text("master_addr") == "10.0.0.3");
    CHECK(w.last(id, "start")->number("master_port") == 25000);
  }
  for (const int64_t id : {1, 2, 3}) w.ended(id, 0, 2, 0, 0);
  for (const int64_t id : {1, 2, 3}) CHECK(w.last(id, "finish")->number("code") == 0);
  CHECK(w.job.over());
}

TEST_CASE("node ranks win over names and MIN nodes start after the last call") {
  World w(nodes(2, 4));
  w.join(1, "a", 3);
  w.join(2, "b", 0);
  w.pass(29);
  CHECK(w.last(1, "start") == nullptr);
  w.pass(2);
  CHECK(w.last(1, "start")->number("node") == 1);
  CHECK(w.last(2, "start")->number("node") == 0);
}

TEST_CASE("a rank that only some nodes ask for is their place") {
  World w(nodes(3, 3));
  w.join(1, "a", 1);  // torchrun's habit: node 0 leaves its 0 out
  w.join(2, "b");
  w.join(3, "c");
  CHECK(w.last(2, "start")->number("node") == 0);
  CHECK(w.last(1, "start")->number("node") == 1);
  CHECK(w.last(3, "start")->number("node") == 2);
}

TEST_CASE("workers that return 0 to make room for a newcomer are not done") {
  World w(nodes(1, 2));
  w.options.last_call = 0;
  w.join(1, "a");
  w.pass(31);
  w.join(2, "b");
  w.ended(1, 0, 1, 0, 0);
  CHECK(w.generation(1) == 1);
  CHECK(w.generation(2) == 1);
}

TEST_CASE("too few nodes end the job after the join timeout") {
  World w(nodes(2, 2));
  w.join(1);
  w.pass(601);
  CHECK(w.last(1, "finish")->number("code") == 1);
  CHECK(contains(w.last(1, "finish")->text("text"), "1 of 2 nodes"));
}

TEST_CASE("the root cause is what could not be a consequence, then what came first") {
  World w(nodes(3, 3));
  for (const int64_t id : {1, 2, 3}) w.join(id);
  w.pass(10);
  w.failed(1, 0, 1);                // noticed first ...
  w.failed(2, 0, 2, 0.5);           // ... but this one says it happened before
  w.failed(3, 0, 5, 0.9, 0, true);  // a consequence by its own words
  for (const int64_t id : {1, 2, 3}) {
    CHECK(w.count(id, "stop") == 1);
    w.ended(id, 0, 0, 0, 2);
  }
  CHECK(contains(w.last(1, "finish")->text("text"), "root cause: rank 2 "));
  CHECK(contains(w.last(1, "finish")->text("text"), "5 other workers"));

  World v(nodes(2, 2));
  v.join(1);
  v.join(2);
  v.failed(1, 0, 0);
  v.failed(2, 0, 3, 0, 11);  // arrives later, but nobody else's end gives SIGSEGV
  v.ended(1, 0, 0, 0, 2);
  v.ended(2, 0, 0, 0, 2);
  CHECK(contains(v.last(1, "finish")->text("text"), "rank 3 "));
}

TEST_CASE("a failure that is told late explains an earlier one but is none") {
  World w(nodes(2, 2, 1));
  w.join(1);
  w.join(2);
  w.failed(1, 0, 0, 0, 0, true);            // noticed a dead peer ...
  w.failed(2, 0, 1, 0, 0, false, true);     // ... that was still on its way out
  w.ended(1, 0, 0, 0, 1);
  w.ended(2, 0, 0, 0, 1);
  CHECK(contains(w.last(1, "start")->text("because"), "rank 1 "));

  World v(nodes(1, 2, 1));
  v.join(1);
  v.pass(31);
  v.join(2);                             // a stop for the newcomer ...
  v.failed(1, 0, 0, 0, 0, false, true);  // ... in which a worker could not save
  v.ended(1, 0, 0, 0, 1);
  CHECK(contains(v.last(1, "start")->text("because"), "a node joined"));
}

TEST_CASE("restarts are counted for the job, not for the node") {
  World w(nodes(2, 2, 2));
  w.join(1);
  w.join(2);
  for (int64_t generation = 0; generation < 3; ++generation) {
    CHECK(w.generation(1) == generation);
    CHECK(w.generation(2) == generation);
    const int64_t guilty = 1 + generation % 2;
    w.failed(guilty, generation, 0);
    w.failed(guilty, generation + 1, 0);  // nonsense about the future is ignored
    w.ended(1, generation, 0, 0, 2);
    CHECK(w.generation(2) == generation);  // not before all have stopped
    w.ended(2, generation, 0, 0, 2);
  }
  CHECK(w.last(1, "finish")->number("code") == 1);
  CHECK(w.last(2, "finish")->number("code") == 1);
}

TEST_CASE("late words about an earlier generation change nothing") {
  World w(nodes(2, 2, 1));
  w.join(1);
  w.join(2);
  w.failed(1, 0, 0);
  w.ended(1, 0, 0, 0, 2);
  w.ended(2, 0, 0, 0, 2);
  REQUIRE(w.generation(2) == 1);
  w.failed(2, 0, 2);
  w.ended(2, 0, 0, 0, 2);
  CHECK(w.count(1, "stop") == 1);
  CHECK(!w.job.over());
}

TEST_CASE("a silent node is lost and the next generation waits for its lease") {
  World w(nodes(1, 2));
  w.join(1);
  w.join(2);
  w.pass(5);
  std::erase(w.alive, 2);
  const double silent = w.now;
  w.pass(2.5);
  CHECK(w.count(1, "stop") == 0);
  w.pass(1);
  CHECK(w.count(1, "stop") == 1);
  w.ended(1, 0, 0, 0, 2);
  CHECK(w.generation(1) == 0);
  // Lost at 3 s. It may have heard this side until then: 3 s of silence, 0.5 s to kill, and a
  // margin.
  while (w.generation(1) == 0 && w.now < silent + 20) w.pass(0.1);
  CHECK(w.now - silent > 3 + 3 + 0.5);
  CHECK(w.now - silent < 3 + 3 + 0.5 + 1.5);
  CHECK(w.last(1, "start")->number("world_size") == 2);
  CHECK(contains(w.last(1, "start")->text("because"), "was lost"));
}

TEST_CASE("a lost node ends a job of fixed size unless a restart can wait for its return") {
  for (const int64_t restarts : {0, 1}) {
    World w(nodes(2, 2, restarts));
    w.join(1, "a", 0);
    w.join(2, "b", 1);
    w.hang_up(2);
    w.ended(1, 0, 0, 0, 2);
    if (restarts == 0) {
      CHECK(w.last(1, "finish")->number("code") == 1);
      CHECK(contains(w.last(1, "finish")->text("text"), "node 1 (b) was lost"));
      continue;
    }
    w.pass(20);
    CHECK(!w.job.over());
    w.join(3, "b", 1);
    w.pass(1);
    CHECK(w.generation(1) == 1);
    CHECK(w.last(3, "start")->number("node") == 1);
  }
}

TEST_CASE("a pause of the coordinator itself makes nobody lost") {
  World w(nodes(2, 2));
  w.join(1);
  w.join(2);
  w.pass(1);
  w.now += 100;  // stopped, or the machine slept
  w.job.tick(w.now);
  w.deliver();
  w.pass(10);
  CHECK(w.count(1, "stop") == 0);
}

TEST_CASE("a signal stops all and the code says whether they saved") {
  const auto outcome = [](int64_t ok, int64_t saved, int64_t other) {
    World w(nodes(2, 2, 5));
    w.join(1);
    w.join(2);
    w.say(2, Message("leaving").with("reason", "SIGTERM"));
    CHECK(w.last(1, "stop")->seconds("grace") == 30);
    w.ended(1, 0, ok, saved, other);
    w.ended(2, 0, 0, 2, 0);
    return w.last(1, "finish")->number("code");
  };
  CHECK(outcome(0, 2, 0) == 75);
  CHECK(outcome(1, 1, 0) == 75);
  CHECK(outcome(0, 1, 1) == 1);
  // Before the start there is nothing to lose.
  World w(nodes(2, 2));
  w.join(1);
  w.say(1, Message("leaving").with("reason", "SIGINT"));
  CHECK(w.last(1, "finish")->number("code") == 75);
}

TEST_CASE("a failure while stopping for a signal is not restarted") {
  World w(nodes(2, 2, 5));
  w.join(1);
  w.join(2);
  w.say(2, Message("leaving").with("reason", "SIGTERM"));
  w.failed(1, 0, 0);
  CHECK(w.count(1, "stop") == 2);  // the second with the short grace
  w.ended(1, 0, 0, 0, 2);
  w.ended(2, 0, 0, 2, 0);
  CHECK(w.last(2, "finish")->number("code") == 1);
}

TEST_CASE("a newcomer is taken in, one beyond MAX waits and replaces a lost node") {
  World w(nodes(1, 2));
  w.options.last_call = 0;
  w.join(1, "a");
  w.pass(31);
  REQUIRE(w.generation(1) == 0);
  w.join(2, "b");
  CHECK(w.last(1, "stop")->seconds("grace") == 30);
  w.ended(1, 0, 0, 2, 0);
  CHECK(w.generation(1) == 1);
  CHECK(w.generation(2) == 1);
  w.join(3, "c");
  CHECK(w.count(1, "stop") == 1);
  CHECK(w.generation(3) == -1);
  w.hang_up(2);
  w.ended(1, 1, 0, 0, 2);
  w.pass(5);
  CHECK(w.generation(1) == 2);
  CHECK(w.generation(3) == 2);
}

TEST_CASE("a node that leaves and is killed before it has saved takes only itself along") {
  World w(nodes(1, 3));
  for (const int64_t id : {1, 2, 3}) w.join(id, fmt::format("h{}", id));
  w.say(3, Message("leaving").with("reason", "SIGTERM"));
  w.ended(1, 0, 0, 2, 0);
  w.hang_up(3);
  w.ended(2, 0, 0, 2, 0);
  w.pass(6);
  CHECK(w.generation(1) == 1);
  CHECK(w.last(2, "start")->number("world_size") == 4);
  // The coordinator's own node is another matter: without it there is no job.
  w.say(1, Message("leaving").with("reason", "SIGTERM"));
  w.ended(1, 1, 0, 2, 0);
  w.ended(2, 1, 0, 2, 0);
  CHECK(w.last(2, "finish")->number("code") == 75);
}

TEST_CASE("one that comes while the port is chosen is in the first generation") {
  World w(nodes(1, 3));
  w.answer_ports = false;
  w.join(1, "a");
  w.pass(31);
  REQUIRE(w.last(1, "pick_port") != nullptr);
  w.join(2, "b");
  w.answer_ports = true;
  w.say(1, Message("port").with("generation", int64_t{0}).with("port", int64_t{25000}));
  w.pass(31);
  CHECK(w.generation(2) == 0);
  CHECK(w.last(2, "start")->number("nodes") == 2);
}

TEST_CASE("strangers are refused with the reason") {
  World w(nodes(2, 2));
  w.join(1, "a", 0);
  w.join(2, "b", 0);
  CHECK(contains(w.last(2, "refuse")->text("reason"), "--node-rank 0 is taken by a"));
  w.join(3, "c", 1, 2, "other");
  CHECK(contains(w.last(3, "refuse")->text("reason"), "not of 'other'"));
  CHECK(!error_of<ProtocolError>([&] { w.say(9, Message("ended")); }).empty());
  CHECK(!error_of<ProtocolError>([&] { w.join(1); }).empty());
  CHECK(!error_of<ProtocolError>([&] { w.say(8, Message("hello")); }).empty());
}

TEST_CASE("whatever nodes say and do the job stays whole and comes to an end") {
  for (uint64_t seed = 0; seed < 3000; ++seed) {
    Philox random(seed);
    World w(
        nodes(1 + static_cast<int64_t>(random.below(2)), 3, static_cast<int64_t>(random.below(3))));
    int64_t next = 1;
    std::map<int64_t, int64_t> running;  // node -> generation of its workers
    for (int step = 0; step < 60 && !w.job.over(); ++step) {
      if (w.alive.empty() || random.below(6) == 0)
        w.join(next, fmt::format("h{}", random.below(20))), ++next;
      const int64_t id = w.alive.empty() ? 0 : w.alive[random.below(w.alive.size())];
      const int64_t g = w.generation(id);
      try {
        switch (id == 0 ? 9 : random.below(8)) {
          case 0:
            w.hang_up(id);
            break;
          case 1:
            if (g >= 0) w.failed(id, g, static_cast<int64_t>(random.below(4)));
            break;
          case 2:
            if (g >= 0) w.ended(id, g, 2, 0, 0);
            break;
          case 3:
            if (g >= 0) w.ended(id, g, 0, 2, 0);
            break;
          case 4:
            if (w.last(id, "stop") != nullptr) w.ended(id, g, 0, 0, 2);
            break;
          case 5:
            if (random.below(4) == 0) w.say(id, Message("leaving").with("reason", "SIGTERM"));
            break;
          case 6:
            std::erase(w.alive, id);
            break;  // falls silent
          default:
            w.pass(static_cast<double>(random.below(50)) / 10);
            break;
        }
      } catch (const ProtocolError&) {
        w.hang_up(id);
      }
      // All nodes of a generation were told the same world, and ranks do not overlap.
      std::map<int64_t, std::pair<int64_t, int64_t>> worlds;  // generation -> sum of workers, world
      for (const auto& [node, messages] : w.sent)
        for (const Message& m : messages)
          if (m.kind == "start") {
            auto& [sum, world] = worlds[m.number("generation")];
            CHECK((sum == 0 || world == m.number("world_size")));
            sum += 2;
            world = m.number("world_size");
          }
      for (const auto& [generation, counted] : worlds) CHECK(counted.first == counted.second);
    }
  }
}

}  // namespace
