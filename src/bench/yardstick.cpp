#include "bench/yardstick.h"

#include "backend/elementwise.h"
#include "backend/matmul.h"

namespace lh::bench {

Yardstick copy_yardstick(const Setup& setup) {
  const int64_t count = setup.pick(1 << 12, 1 << 24, 1 << 28);
  const Tensor from = random_tensor({count}, DType::kF32, setup.device);
  return {[from, to = Tensor::empty_like(from)]() mutable {
            LH_DISPATCH(from.device(), "bench", copy(from, to));
          },
          2.0 * static_cast<double>(from.bytes()), "copy"};
}

Yardstick product_yardstick(const Setup& setup) {
  const int64_t n = setup.pick(32, 1024, 8192);
  const Tensor a = random_tensor({n, n}, setup.dtype, setup.device, 1);
  const Tensor b = random_tensor({n, n}, setup.dtype, setup.device, 2);
  return {[a, b, c = Tensor::empty_like(a)]() mutable {
            LH_DISPATCH(a.device(), "bench", gemm(a, false, b, true, c, false));
          },
          2.0 * static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n),
          fmt::format("{} product of {}", dtype_name(setup.dtype), n)};
}

void add_against(const Yardstick& yardstick, const std::function<void()>& run, const Setup& setup,
                 Row row, Report& report) {
  add_against(yardstick, run, setup, std::move(row), report, setup.effort());
}

void add_against(const Yardstick& yardstick, const std::function<void()>& run, const Setup& setup,
                 Row row, Report& report, const Effort& effort) {
  const std::function<void()> ways[] = {run, yardstick.run};
  const auto times = measure(setup.device, ways, effort);
  row.times = times[0];
  const double work = row.flops > 0 ? row.flops : row.bytes;
  row.ratio = work / times[0].median / (yardstick.work / times[1].median);
  row.ratio_to = yardstick.name;
  row.peer_seconds = times[1].median;
  report.add(std::move(row));
}

void add_same_job(const std::function<void()>& peer, const std::string& peer_name,
                  std::vector<Contender> contenders, const Setup& setup, Report& report, const Effort& effort) {
  std::vector<std::function<void()>> ways = {peer};
  for (const Contender& contender : contenders) ways.push_back(contender.run);
  const auto times = measure(setup.device, ways, effort);
  for (size_t i = 0; i < contenders.size(); ++i) {
    Row& row = contenders[i].row;
    row.times = times[i + 1];
    row.peer_seconds = times[0].median;
    row.ratio = row.peer_seconds / row.times.median;
    row.ratio_to = "speed of " + peer_name;
    report.add(std::move(row));
  }
}

}  // namespace lh::bench
