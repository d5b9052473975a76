#include "runtime/memory.h"

#include <doctest/doctest.h>

#include <thread>

#include "base/philox.h"
#include "tensor/tensor.h"

namespace {

using namespace lh;

int64_t now(MemoryOwner owner) {
  return memory_report().now[static_cast<size_t>(owner)];
}

TEST_CASE("bytes are charged to the owner in scope until the last handle goes") {
  const int64_t weights = now(MemoryOwner::kWeights), activations = now(MemoryOwner::kActivations);
  Tensor view;
  {
    const MemoryScope scope(MemoryOwner::kWeights);
    const Tensor t = Tensor::empty({100}, DType::kF32);
    CHECK(now(MemoryOwner::kWeights) == weights + 400);
    view = t.slice(0, 0, 1);
  }
  CHECK(now(MemoryOwner::kWeights) == weights + 400);
  const Tensor other = Tensor::empty({10}, DType::kF64);
  CHECK(now(MemoryOwner::kActivations) == activations + 80);
  view = Tensor();
  CHECK(now(MemoryOwner::kWeights) == weights);
}

TEST_CASE("the peak is the highest total and says who held it") {
  reset_memory_peak();
  const int64_t before = memory_report().total_now;
  {
    const MemoryScope scope(MemoryOwner::kGradients);
    const Tensor a = Tensor::empty({1000}, DType::kF32);
    { const Tensor b = Tensor::empty({500}, DType::kF32); }
  }
  const MemoryReport report = memory_report();
  CHECK(report.total_now == before);
  CHECK(report.total_peak == before + 6000);
  CHECK(report.at_peak[static_cast<size_t>(MemoryOwner::kGradients)] >= 6000);
  CHECK(report.table().find("gradients") != std::string::npos);
  reset_memory_peak();
  CHECK(memory_report().total_peak == before);
}

TEST_CASE("memory given back is used again and never shared") {
  Philox random(1);
  std::vector<std::pair<Tensor, uint8_t>> live;
  for (int i = 0; i < 5000; ++i) {
    if (live.size() > 40 || (!live.empty() && random.below(3) == 0)) {
      const size_t at = random.below(static_cast<uint32_t>(live.size()));
      for (const uint8_t byte : live[at].first.span<uint8_t>()) REQUIRE(byte == live[at].second);
      std::swap(live[at], live.back());
      live.pop_back();
      continue;
    }
    Tensor t = Tensor::empty({1 + static_cast<int64_t>(random.below(100'000))}, DType::kU8);
    CHECK(reinterpret_cast<uintptr_t>(t.raw()) % 64 == 0);
    const auto mark = static_cast<uint8_t>(i);
    std::fill(t.span<uint8_t>().begin(), t.span<uint8_t>().end(), mark);
    live.emplace_back(std::move(t), mark);
  }
}

TEST_CASE("threads allocate at the same time and scopes are their own") {
  const int64_t before = memory_report().total_now;
  std::vector<std::thread> threads;
  for (int n = 0; n < 4; ++n)
    threads.emplace_back([n] {
      const MemoryScope scope(n % 2 == 0 ? MemoryOwner::kData : MemoryOwner::kCache);
      for (int i = 0; i < 2000; ++i) {
        const Tensor t = Tensor::empty({1 + i % 97}, DType::kI32);
        t.data<int32_t>()[0] = i;
      }
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(memory_report().total_now == before);
}

TEST_CASE("an impossible request names size and owner and prints the table") {
  const MemoryScope scope(MemoryOwner::kOptimizer);
  CHECK_THROWS_WITH(Tensor::empty({int64_t{1} << 55}, DType::kU8), doctest::Contains("optimizer"));
  CHECK_THROWS_WITH(Tensor::empty({int64_t{1} << 55}, DType::kU8),
                    doctest::Contains("out of memory"));
}

}  // namespace
