// The prefetch thread: order, errors, prompt ends. No test depends on how fast anything is.
#include "data/prefetcher.h"

#include <doctest/doctest.h>
#include <csignal>
#include <future>
#include <stdexcept>
#include <thread>

#include "base/error.h"

using namespace lh;

namespace {

Batch numbered(int64_t index) {
  Batch batch;
  batch.step = index;
  return batch;
}

std::atomic<bool> stop_requested{false};

}  // namespace

TEST_CASE("batches come in order and then the end") {
  for (const int64_t depth : {1, 3, 100}) {
    Prefetcher prefetcher(
        [](int64_t index) -> std::optional<Batch> {
          if (index == 25) return std::nullopt;
          return numbered(index);
        },
        5, depth);
    Batch batch;
    for (int64_t index = 5; index < 25; ++index) {
      REQUIRE(prefetcher.next(batch) == Fetch::kReady);
      REQUIRE(batch.step == index);
    }
    CHECK(prefetcher.next(batch) == Fetch::kEnd);
    CHECK(prefetcher.next(batch) == Fetch::kEnd);
  }
}

TEST_CASE("no more than depth batches are made ahead") {
  std::atomic<int64_t> made{0};
  Prefetcher prefetcher(
      [&](int64_t index) -> std::optional<Batch> {
        ++made;
        return numbered(index);
      },
      0, 3);
  Batch batch;
  for (int64_t taken = 1; taken <= 50; ++taken) {
    REQUIRE(prefetcher.next(batch) == Fetch::kReady);
    REQUIRE(made <= taken + 3);
  }
}

TEST_CASE("an error of the producer reaches the consumer after the batches before it") {
  Prefetcher prefetcher(
      [](int64_t index) -> std::optional<Batch> {
        if (index == 2) fail<IoError>("disk gone");
        return numbered(index);
      },
      0, 2);
  Batch batch;
  CHECK(prefetcher.next(batch) == Fetch::kReady);
  CHECK(prefetcher.next(batch) == Fetch::kReady);
  CHECK_THROWS_WITH_AS(prefetcher.next(batch), "disk gone", IoError);
  CHECK_THROWS_AS(prefetcher.next(batch), IoError);
}

TEST_CASE("SIGTERM interrupts a wait for data") {
  std::promise<void> release;
  auto released = release.get_future().share();
  Prefetcher prefetcher(
      [&](int64_t index) -> std::optional<Batch> {
        released.wait();
        return numbered(index);
      },
      0, 1);
  const auto old_handler = std::signal(SIGTERM, [](int) { stop_requested = true; });
  std::thread killer([] { std::raise(SIGTERM); });
  Batch batch;
  CHECK(prefetcher.next(batch, &stop_requested) == Fetch::kStopped);
  killer.join();
  std::signal(SIGTERM, old_handler);
  CHECK(prefetcher.next(batch, nullptr, std::chrono::milliseconds(1)) == Fetch::kTimeout);
  CHECK(prefetcher.waited_seconds() > 0);
  release.set_value();
  CHECK(prefetcher.next(batch) == Fetch::kReady);
}

TEST_CASE("destruction does not wait for batches that nobody takes") {
  std::atomic<int64_t> made{0};
  {
    Prefetcher prefetcher(
        [&](int64_t index) -> std::optional<Batch> {
          ++made;
          return numbered(index);
        },
        0, 2);
    while (made < 2) std::this_thread::yield();
  }
  CHECK(made <= 3);
}
