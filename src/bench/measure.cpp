#include "bench/measure.h"

#include <algorithm>
#include <cmath>

#include "backend/elementwise.h"
#include "base/philox.h"
#include "base/timer.h"
#include "runtime/gpu.h"

namespace lh::bench {
namespace {

using Way = std::function<void()>;

double wall_seconds(const Way& way) {
  const Timer timer;
  way();
  return timer.seconds();
}

/// Times calls by events, each after a write of twice the L2 cache.
class StreamTimer {
 public:
  explicit StreamTimer(Device device) : device_(device), begin_(device), end_(device) {
    const auto bytes = 2 * gpu::device_info(device).l2_bytes;
    if (bytes > 0) flush_ = Tensor::empty({bytes}, DType::kU8, device);
  }
  double seconds(const Way& way) {
    if (flush_.defined()) gpu::fill_bytes(device_, flush_.raw(), 1, flush_.bytes());
    begin_.record();
    way();
    end_.record();
    return end_.seconds_since(begin_);
  }

 private:
  Device device_;
  Tensor flush_;
  gpu::Event begin_, end_;
};

template <typename Timing>
std::vector<Times> in_turn(std::span<const Way> ways, const Effort& effort, Timing&& timing) {
  std::vector<std::vector<double>> seconds(ways.size());
  for (int64_t i = 0; i < effort.warmup; ++i)
    for (const Way& way : ways) timing(way);
  const Timer total;
  for (int64_t round = 0; round < effort.most; ++round) {
    if (round >= effort.least && total.seconds() > effort.seconds) break;
    for (size_t w = 0; w < ways.size(); ++w) seconds[w].push_back(timing(ways[w]));
  }
  std::vector<Times> times;
  for (auto& of_way : seconds) times.push_back(summary(std::move(of_way)));
  return times;
}

}  // namespace

Times summary(std::vector<double> seconds) {
  LH_CHECK(!seconds.empty(), "[bench] nothing was measured");
  std::sort(seconds.begin(), seconds.end());
  const auto at = [&](double share) {
    const double place = share * static_cast<double>(seconds.size() - 1);
    return seconds[static_cast<size_t>(std::lround(place))];
  };
  const size_t half = seconds.size() / 2;
  const double median =
      seconds.size() % 2 == 1 ? seconds[half] : (seconds[half - 1] + seconds[half]) / 2;
  return {median, at(0.1), at(0.9), static_cast<int64_t>(seconds.size())};
}

std::vector<Times> measure(Device device, std::span<const Way> ways, const Effort& effort) {
  if constexpr (kWithCuda) {
    if (!device.is_cpu()) {
      StreamTimer timer(device);
      return in_turn(ways, effort, [&](const Way& way) { return timer.seconds(way); });
    }
  }
  return in_turn(ways, effort, wall_seconds);
}

Tensor random_tensor(const Shape& shape, DType dtype, Device device, uint64_t seed) {
  constexpr int64_t kBlock = int64_t{1} << 22;
  Tensor result = Tensor::empty(shape, dtype, device);
  const int64_t count = result.numel(), block = std::min(count, kBlock);
  if (count == 0) return result;
  Tensor values = Tensor::empty({block}, DType::kF32);
  Philox random(seed);
  for (float& v : values.span<float>()) v = static_cast<float>(2 * random.uniform() - 1);
  values = values.to(device);
  const Tensor flat = result.reshape({count});
  for (int64_t at = 0; at < count; at += block) {
    const int64_t end = std::min(count, at + block);
    Tensor part = flat.slice(0, at, end);
    LH_DISPATCH(device, "bench", copy(values.slice(0, 0, end - at), part));
  }
  return result;
}

Tensor random_ids(int64_t count, int64_t below, Device device, uint64_t seed) {
  Tensor ids = Tensor::empty({count}, DType::kI32);
  Philox random(seed);
  for (int32_t& id : ids.span<int32_t>())
    id = static_cast<int32_t>(random.below(static_cast<uint64_t>(below)));
  return ids.to(device);
}

}  // namespace lh::bench
