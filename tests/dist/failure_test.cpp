// What a job says when its processes are at different places, when one dies, hangs or never comes.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>

#include <fmt/format.h>

#include "base/timer.h"
#include "support/folder.h"
#include "support/ranks.h"

using namespace lh;
using namespace lh::test;

namespace {

/// The message of the CommError that function(job) ends with, per rank.
std::vector<std::string> messages(int size, const std::function<void(Peers&)>& function,
                                  const GlooOptions& gloo = loopback()) {
  std::vector<std::string> all(static_cast<size_t>(size));
  on_ranks(
      size,
      [&](Peers& job) {
        try {
          function(job);
        } catch (const CommError& error) {
          all[static_cast<size_t>(job.rank())] = error.what();
        }
      },
      gloo);
  return all;
}

}  // namespace

TEST_CASE("processes at different places are told who is where within seconds") {
  const Timer timer;
  const auto all = messages(4, [](Peers& job) {
    const auto comm = job.world("test");
    Tensor t = Tensor::zeros({100}, DType::kF32);
    comm->set_step(17);
    comm->all_reduce(t, ReduceOp::kSum, "grad all-reduce");
    if (job.rank() == 3) comm->broadcast(t, 0, "checkpoint.save");
    else comm->all_reduce(t, ReduceOp::kSum, "grad all-reduce");
  });
  CHECK(timer.seconds() < 10);
  for (const std::string& message : all) {
    CAPTURE(message);
    CHECK(message == all[0]);  // one cause for all
    CHECK(message.find("'checkpoint.save' (broadcast") != std::string::npos);
    CHECK(message.find("'grad all-reduce' (all_reduce") != std::string::npos);
    CHECK(message.find("rank 3 (host ") != std::string::npos);
    CHECK(message.find("step 17") != std::string::npos);
  }
}

TEST_CASE("another size or dtype is a mismatch too") {
  for (const bool other_dtype : {false, true}) {
    const auto all = messages(2, [&](Peers& job) {
      const auto comm = job.world("test");
      const bool odd = job.rank() == 1;
      Tensor t = Tensor::zeros({odd && !other_dtype ? 11 : 10},
                               odd && other_dtype ? DType::kF64 : DType::kF32);
      comm->all_reduce(t, ReduceOp::kSum, "loss");
    });
    CAPTURE(all[0]);
    CHECK(all[0].find(other_dtype ? "10 f64" : "11 f32") != std::string::npos);
    CHECK(all[0].find("10 f32") != std::string::npos);
  }
}

TEST_CASE("collectives that ask all and collectives that ask neighbours find each other out") {
  for (const std::vector<int>& traders : {std::vector<int>{0}, {1, 2}, {0, 2}, {0, 1, 3}}) {
    const Timer timer;
    const auto all = messages(4, [&](Peers& job) {
      const auto comm = job.world("test");
      Tensor t = Tensor::zeros({8}, DType::kF32), out = Tensor::zeros({8}, DType::kF32);
      if (std::find(traders.begin(), traders.end(), job.rank()) == traders.end())
        comm->all_reduce(t, ReduceOp::kSum, "loss");
      else comm->all_to_all(t, out, "rows");
    });
    CHECK(timer.seconds() < 10);
    for (const std::string& message : all) {
      CAPTURE(message);
      CHECK(message == all[0]);
      CHECK(message.find("'rows' (all_to_all") != std::string::npos);
      CHECK(message.find("'loss' (all_reduce") != std::string::npos);
    }
  }
}

TEST_CASE("counts of two processes that differ are a mismatch, whichever two they are") {
  for (const int liar : {0, 1, 2}) {
    const Timer timer;
    // What `liar` sends to the process on its left is one element more than that one expects.
    const auto all = messages(3, [&](Peers& job) {
      const auto comm = job.world("test");
      const int me = job.rank();
      std::vector<int64_t> sends(3, 2), takes(3, 2);
      if (me == liar) ++sends[static_cast<size_t>((liar + 2) % 3)];
      int64_t elements = 0;
      for (const int64_t count : sends) elements += count;
      const Tensor in = Tensor::zeros({elements}, DType::kF32);
      Tensor out = Tensor::zeros({6}, DType::kF32);
      comm->set_step(5);
      comm->all_to_all_v(in, sends, out, takes, "rows");
    });
    CHECK(timer.seconds() < 10);
    for (const std::string& message : all) {
      CAPTURE(message);
      CHECK(message == all[0]);
      CHECK(message.find(fmt::format("rank {} (host ", liar)) < message.find("for rank"));
      CHECK(message.find("'rows' (all_to_all number 1 of the group, step 5, 3 f32)") != std::string::npos);
      CHECK(message.find(fmt::format("for rank {} (host ", (liar + 2) % 3)) != std::string::npos);
      CHECK(message.find("which expects 2 elements") != std::string::npos);
    }
  }
  const auto all = messages(3, [](Peers& job) {
    const auto comm = job.world("test");
    const int me = job.rank();
    const Tensor out = Tensor::zeros({me == 0 ? 4 : 3}, DType::kF32);
    Tensor in = Tensor::zeros({3}, DType::kF32);
    comm->send_receive(out, (me + 2) % 3, in, (me + 1) % 3, "halo");
  });
  CAPTURE(all[0]);
  CHECK(all[0].find("'halo' (send number 1 of the group, step 0, 4 f32)") != std::string::npos);
  CHECK(all[0].find("for rank 2 (host ") != std::string::npos);
  CHECK(all[0].find("which expects 3 elements") != std::string::npos);
}

TEST_CASE("counts that processes disagree on are a mismatch") {
  on_processes("counts that processes disagree on*", 3, [](Peers& job) {
    const auto comm = job.world("test");
    std::vector<int64_t> sends(3, 2), takes(3, 2);
    if (job.rank() == 2) sends[0] = 3;
    const Tensor in = Tensor::zeros({sends[0] + 4}, DType::kBF16);
    Tensor out = Tensor::zeros({6}, DType::kBF16);
    std::string message;
    try {
      comm->all_to_all_v(in, sends, out, takes, "rows");
    } catch (const CommError& error) {
      message = error.what();
    }
    CAPTURE(message);
    CHECK(contains(message, "rank 2 (host "));
    CHECK(contains(message, "'rows' (all_to_all number 1 of the group, step 0, 3 bf16)"));
    CHECK(contains(message, "which expects 2 elements"));
  });
}

TEST_CASE("in a group too large for a check of all pairs neighbours still find a wrong count") {
  const int size = 18;
  const auto all = messages(size, [&](Peers& job) {
    const auto comm = job.world("test");
    const int me = job.rank();
    std::vector<int64_t> counts(size, 1), wrong = counts;
    if (me == 5) ++wrong[6];
    const Tensor in = Tensor::zeros({size + (me == 5 ? 1 : 0)}, DType::kF32);
    Tensor out = Tensor::zeros({size}, DType::kF32);
    comm->all_to_all_v(Tensor::zeros({size}, DType::kF32), counts, out, counts, "rows");  // right ones pass
    comm->all_to_all_v(in, wrong, out, counts, "rows");
  });
  for (const std::string& message : all) {
    CAPTURE(message);
    CHECK(message == all[0]);
    CHECK(contains(message, "rank 5 (host "));
    CHECK(contains(message, "'rows' (all_to_all number 2 of the group, step 0, 2 f32)"));
    CHECK(contains(message, "for rank 6 (host "));
  }
}

TEST_CASE("a communicator that failed says so again") {
  messages(2, [](Peers& job) {
    const auto comm = job.world("test");
    Tensor t = Tensor::zeros({job.rank() + 1}, DType::kF32);
    std::string first;
    try {
      comm->all_reduce(t, ReduceOp::kSum, "loss");
    } catch (const CommError& error) {
      first = error.what();
    }
    try {
      comm->barrier("later");
    } catch (const CommError& error) {
      if (first.empty() || first != error.what()) throw Error("another message");
      return;
    }
    throw Error("no refusal");
  });
}

TEST_CASE("a process that never comes to a collective is a timeout with its label") {
  const Timer timer;
  const auto all = messages(
      2,
      [](Peers& job) {
        const auto comm = job.world("test");
        Tensor t = Tensor::zeros({1}, DType::kF32);
        if (job.rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(2500));
        else comm->all_reduce(t, ReduceOp::kSum, "grad all-reduce");
      },
      loopback(std::chrono::milliseconds(1000)));
  CHECK(all[0].find("Timed out") != std::string::npos);
  CHECK(timer.seconds() < 8);
}

TEST_CASE("a process that is killed ends the job with its name as the one cause") {
  // The ranks are processes: forked before anything of this process has threads of its own.
  constexpr int kRanks = 3;
  TcpStoreServer server({"127.0.0.1", 0});
  int results[2];
  REQUIRE(pipe(results) == 0);
  std::vector<pid_t> pids;
  for (int rank = 0; rank < kRanks; ++rank) {
    const pid_t pid = fork();
    if (pid == 0) {
      std::string message = "no error";
      try {
        Peers job({.rank = rank, .size = kRanks, .master = {"127.0.0.1", server.port()}}, loopback(),
                connect_tcp_store({"127.0.0.1", server.port()}, std::chrono::seconds(10)));
        const auto comm = job.world("test");
        Tensor t = Tensor::zeros({100}, DType::kF32);
        for (int64_t step = 0;; ++step) {
          comm->set_step(step);
          comm->all_reduce(t, ReduceOp::kSum, "grad all-reduce");
          if (step == 20 && rank == 1) kill(getpid(), SIGKILL);
        }
      } catch (const CommError& error) {
        message = error.what();
      }
      message += "\n";
      if (write(results[1], message.data(), message.size()) < 0) _exit(2);
      _exit(1);
    }
    pids.push_back(pid);
  }
  close(results[1]);
  const Timer timer;
  for (const pid_t pid : pids) waitpid(pid, nullptr, 0);
  CHECK(timer.seconds() < 10);
  std::string text;
  char buffer[4096];
  for (ssize_t count; (count = read(results[0], buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<size_t>(count));
  close(results[0]);
  const size_t end = text.find('\n');
  REQUIRE(end != std::string::npos);
  const std::string first = text.substr(0, end);
  CAPTURE(text);
  CHECK(text == first + "\n" + first + "\n");
  CHECK(first.find("lost rank 1 (host ") == 0);
  CHECK(first.find("in grad all-reduce, step 2") != std::string::npos);
}

TEST_CASE("a process of another version is told by itself and ends all with its exit code") {
  std::vector<std::string> ends(3);
  on_ranks(3, [&](Peers& job) {
    std::string& end = ends[static_cast<size_t>(job.rank())];
    try {
      job.agree("program", fmt::format("longhand 1.{}", job.rank() == 2 ? 1 : 0));
    } catch (const ConfigError& error) {
      end = error.what();
      CHECK(job.tells(error.what(), 2));
    } catch (const PeerFailure& failure) {
      CHECK(failure.exit_code() == 2);
      CHECK(!job.tells("another", 1));
      end = failure.what();
    }
  });
  CHECK(contains(ends[2], "'longhand 1.1' here, 'longhand 1.0' at rank 0; all processes need the same"));
  CHECK(ends[0] == ends[2]);
  CHECK(ends[1] == ends[2]);
}
