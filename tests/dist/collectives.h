// Every collective against a plain computation on the host, for ranks of any kind.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <mutex>
#include <span>

#include "support/compare.h"
#include "support/ranks.h"

namespace lh::test {

inline constexpr DType kTypes[] = {DType::kF32, DType::kBF16, DType::kF64, DType::kI64};

/// Small whole numbers are exact in every dtype, and their sums too.
inline Tensor numbers(int64_t count, DType dtype, int rank, int salt = 0) {
  Tensor t = Tensor::empty({count}, dtype);
  std::vector<double> values;
  for (int64_t i = 0; i < count; ++i)
    values.push_back(static_cast<double>((i * 7 + rank * 3 + salt) % 11 - 5));
  assign(t, values);
  return t;
}

/// doctest's checks are not for several threads at once.
inline void check_equal(const Tensor& got, const std::vector<double>& want, const char* what) {
  const std::vector<double> values = to_doubles(got.to(kCpuDevice));  // may wait for the other threads
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  CHECK_MESSAGE(values == want, what << " " << got.str());
}

/// On tensors of the device, in these dtypes.
inline void every_collective(Communicator& comm, std::span<const DType> types = kTypes,
                             Device device = kCpuDevice) {
  const int n = comm.size(), me = comm.rank();
  for (const DType dtype : types)
    for (const int64_t count : {0, 1, 5, 1000}) {
      const auto mine = [&](int64_t elements, int salt = 0) {
        return numbers(elements, dtype, me, salt).to(device);
      };
      std::vector<double> sum(static_cast<size_t>(count)), most(static_cast<size_t>(count), -100);
      for (int r = 0; r < n; ++r) {
        const auto values = to_doubles(numbers(count, dtype, r));
        for (size_t i = 0; i < values.size(); ++i) {
          sum[i] += values[i];
          most[i] = std::max(most[i], values[i]);
        }
      }
      Tensor t = mine(count);
      comm.all_reduce(t, ReduceOp::kSum, "sum");
      check_equal(t, sum, "all_reduce sum");
      if (dtype != DType::kBF16) {
        t = mine(count);
        comm.all_reduce(t, ReduceOp::kMax, "max");
        check_equal(t, most, "all_reduce max");
      }

      std::vector<int64_t> counts;  // uneven, some empty
      for (int r = 0; r < n; ++r) counts.push_back(count * (r % 3));
      int64_t total = 0, before = 0;
      for (int r = 0; r < n; ++r) {
        if (r == me) before = total;
        total += counts[static_cast<size_t>(r)];
      }
      const int64_t own = counts[static_cast<size_t>(me)];
      std::vector<double> reduced(static_cast<size_t>(own));
      for (int r = 0; r < n; ++r) {
        const auto values = to_doubles(numbers(total, dtype, r, 4));
        for (int64_t i = 0; i < own; ++i)
          reduced[static_cast<size_t>(i)] += values[static_cast<size_t>(before + i)];
      }
      Tensor out = Tensor::empty({own}, dtype, device);
      comm.reduce_scatter_v(mine(total, 4), counts, out, "scatter");
      check_equal(out, reduced, "reduce_scatter_v");

      std::vector<double> gathered;
      for (int r = 0; r < n; ++r) {
        const auto values = to_doubles(numbers(counts[static_cast<size_t>(r)], dtype, r, 5));
        gathered.insert(gathered.end(), values.begin(), values.end());
      }
      Tensor all = Tensor::empty({total}, dtype, device);
      comm.all_gather_v(mine(own, 5), counts, all, "gather");
      check_equal(all, gathered, "all_gather_v");

      // Rank s sends (s + r) % 3 * count elements to rank r.
      std::vector<int64_t> sends, takes;
      std::vector<double> arriving;
      int64_t sent = 0, taken = 0;
      for (int r = 0; r < n; ++r) {
        sends.push_back((me + r) % 3 * count);
        takes.push_back((r + me) % 3 * count);
        sent += sends.back(), taken += takes.back();
        int64_t offset = 0, whole = 0;
        for (int k = 0; k < n; ++k) {
          if (k == me) offset = whole;
          whole += (r + k) % 3 * count;
        }
        const auto values = to_doubles(numbers(whole, dtype, r, 6));
        arriving.insert(arriving.end(), values.begin() + offset,
                        values.begin() + offset + takes.back());
      }
      Tensor arrived = Tensor::empty({taken}, dtype, device);
      comm.all_to_all_v(mine(sent, 6), sends, arrived, takes, "a2a");
      check_equal(arrived, arriving, "all_to_all_v");

      // Equal parts and blocks.
      const int64_t parts = count * n;
      std::vector<double> own_part(static_cast<size_t>(count)), blocks;
      for (int r = 0; r < n; ++r) {
        const auto values = to_doubles(numbers(parts, dtype, r, 11));
        const auto begin = values.begin() + me * count;
        blocks.insert(blocks.end(), begin, begin + count);
        for (int64_t i = 0; i < count; ++i)
          own_part[static_cast<size_t>(i)] += values[static_cast<size_t>(me * count + i)];
      }
      Tensor part = Tensor::empty({count}, dtype, device);
      comm.reduce_scatter(mine(parts, 11), part, "equal parts");
      check_equal(part, own_part, "reduce_scatter");
      Tensor traded = Tensor::empty({parts}, dtype, device);
      comm.all_to_all(mine(parts, 11), traded, "equal blocks");
      check_equal(traded, blocks, "all_to_all");

      Tensor from_left = Tensor::empty({count}, dtype, device);
      comm.send_receive(mine(count, 7), (me + 1) % n, from_left, (me + n - 1) % n, "ring");
      check_equal(from_left, to_doubles(numbers(count, dtype, (me + n - 1) % n, 7)), "send_receive");
      // A line: nobody sends to the first, the last sends to nobody.
      Tensor halo = mine(count, 8);
      comm.send_receive(mine(count, 9), me + 1 < n ? me + 1 : -1, halo, me - 1, "line");
      check_equal(halo, to_doubles(me == 0 ? numbers(count, dtype, 0, 8) : numbers(count, dtype, me - 1, 9)),
                  "send_receive in a line");

      Tensor shared = mine(count, 10);
      comm.broadcast(shared, n - 1, "from the last");
      check_equal(shared, to_doubles(numbers(count, dtype, n - 1, 10)), "broadcast");
      comm.barrier("all here");
    }
}

/// In f32, in the order of the ranks.
inline void bf16_sums(Communicator& comm, Device device = kCpuDevice) {
  constexpr int64_t kCount = 500;
  const auto input = [](int rank) {
    return random_tensor({kCount}, DType::kBF16, static_cast<uint64_t>(rank + 1));
  };
  Tensor t = input(comm.rank()).to(device);
  comm.all_reduce(t, ReduceOp::kSum, "grad all-reduce");
  std::vector<float> sums(kCount);
  for (int r = 0; r < comm.size(); ++r) {
    const std::vector<double> values = to_doubles(input(r));
    for (size_t i = 0; i < kCount; ++i)
      sums[i] = r == 0 ? static_cast<float>(values[i]) : sums[i] + static_cast<float>(values[i]);
  }
  std::vector<double> want;
  for (const float sum : sums) want.push_back(static_cast<float>(bf16(sum)));
  check_equal(t, want, "sum of bf16");
}

}  // namespace lh::test
