// Every collective against a plain computation on the host, on 1 to 4 ranks over real connections, as threads
// and as processes.
#include <doctest/doctest.h>

#include <mutex>

#include "support/compare.h"
#include "support/ranks.h"

using namespace lh;
using namespace lh::test;

namespace {

constexpr DType kTypes[] = {DType::kF32, DType::kBF16, DType::kF64, DType::kI64};

/// Small whole numbers are exact in every dtype, and their sums too.
Tensor numbers(int64_t count, DType dtype, int rank, int salt = 0) {
  Tensor t = Tensor::empty({count}, dtype);
  std::vector<double> values;
  for (int64_t i = 0; i < count; ++i)
    values.push_back(static_cast<double>((i * 7 + rank * 3 + salt) % 11 - 5));
  assign(t, values);
  return t;
}

/// doctest's checks are not for several threads at once.
void check_equal(const Tensor& got, const std::vector<double>& want, const char* what) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  CHECK_MESSAGE(to_doubles(got) == want, what << " " << got.str());
}

void every_collective(Communicator& comm) {
  const int n = comm.size(), me = comm.rank();
  for (const DType dtype : kTypes)
    for (const int64_t count : {0, 1, 5, 1000}) {
      std::vector<double> sum(static_cast<size_t>(count)), most(static_cast<size_t>(count), -100);
      for (int r = 0; r < n; ++r) {
        const auto values = to_doubles(numbers(count, dtype, r));
        for (size_t i = 0; i < values.size(); ++i) {
          sum[i] += values[i];
          most[i] = std::max(most[i], values[i]);
        }
      }
      Tensor t = numbers(count, dtype, me);
      comm.all_reduce(t, ReduceOp::kSum, "sum");
      check_equal(t, sum, "all_reduce sum");
      if (dtype != DType::kBF16) {
        t = numbers(count, dtype, me);
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
      Tensor out = Tensor::empty({own}, dtype);
      comm.reduce_scatter_v(numbers(total, dtype, me, 4), counts, out, "scatter");
      check_equal(out, reduced, "reduce_scatter_v");

      std::vector<double> gathered;
      for (int r = 0; r < n; ++r) {
        const auto values = to_doubles(numbers(counts[static_cast<size_t>(r)], dtype, r, 5));
        gathered.insert(gathered.end(), values.begin(), values.end());
      }
      Tensor all = Tensor::empty({total}, dtype);
      comm.all_gather_v(numbers(own, dtype, me, 5), counts, all, "gather");
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
      Tensor arrived = Tensor::empty({taken}, dtype);
      comm.all_to_all_v(numbers(sent, dtype, me, 6), sends, arrived, takes, "a2a");
      check_equal(arrived, arriving, "all_to_all_v");

      Tensor from_left = Tensor::empty({count}, dtype);
      comm.send_receive(numbers(count, dtype, me, 7), (me + 1) % n, from_left, (me + n - 1) % n, "ring");
      check_equal(from_left, to_doubles(numbers(count, dtype, (me + n - 1) % n, 7)), "send_receive");
      // A line: nobody sends to the first, the last sends to nobody.
      Tensor halo = numbers(count, dtype, me, 8);
      comm.send_receive(numbers(count, dtype, me, 9), me + 1 < n ? me + 1 : -1, halo, me - 1, "line");
      check_equal(halo, to_doubles(me == 0 ? numbers(count, dtype, 0, 8) : numbers(count, dtype, me - 1, 9)),
                  "send_receive in a line");

      Tensor shared = numbers(count, dtype, me, 10);
      comm.broadcast(shared, n - 1, "from the last");
      check_equal(shared, to_doubles(numbers(count, dtype, n - 1, 10)), "broadcast");
      comm.barrier("all here");
    }
}

void bf16_sums(Communicator& comm) {
  constexpr int64_t kCount = 500;
  const auto input = [](int rank) {
    return random_tensor({kCount}, DType::kBF16, static_cast<uint64_t>(rank + 1));
  };
  Tensor t = input(comm.rank());
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

}  // namespace

TEST_CASE("every collective equals a plain computation on 1 to 4 ranks") {
  for (const int size : {1, 2, 3, 4}) {
    CAPTURE(size);
    on_ranks(size, [](Peers& job) { every_collective(*job.world("test")); });
  }
}

TEST_CASE("every collective equals a plain computation on 2 to 4 processes") {
  for (const int size : {2, 3, 4})
    on_processes("*on 2 to 4 processes", size, [](Peers& job) {
      const auto comm = job.world("test");
      every_collective(*comm);
      bf16_sums(*comm);
      comm->barrier("done");
    });
}

TEST_CASE("sums of bf16 are made in f32 in the order of the ranks and are equal on all of them") {
  on_ranks(3, [](Peers& job) { bf16_sums(*job.world("test")); });
}

TEST_CASE("groups of a mesh are apart, and bytes are counted as the formulas say") {
  on_ranks(4, [](Peers& job) {
    Mesh mesh = Mesh::connect(job, 2, 2);
    Tensor t = Tensor::from(std::vector<float>{static_cast<float>(1 << job.rank())}, {1});
    mesh.context->all_reduce(t, ReduceOp::kSum, "pair");
    check_equal(t, {job.rank() < 2 ? 3.0 : 12.0}, "sum of a pair");
    Tensor large = Tensor::zeros({4000}, DType::kF32);
    mesh.world->all_reduce(large, ReduceOp::kSum, "all");
    // Reduce-scatter and all-gather, each (n - 1) / n of the tensor.
    if (mesh.world->traffic().all_reduce != 2 * 3 * 1000 * 4) throw Error("bytes of the all-reduce");
  });
}

TEST_CASE("a mesh that does not fill the job is refused with the numbers") {
  CHECK_THROWS_WITH_AS(mesh_place(0, 6, 0, 4), doctest::Contains("6 processes do not make whole groups of "
                                                                 "parallel.context 4"),
                       ConfigError);
  CHECK_THROWS_WITH_AS(mesh_place(0, 6, 2, 2), doctest::Contains("start 4 processes"), ConfigError);
  const MeshPlace place = mesh_place(5, 6, 0, 2);
  CHECK(place.data == 3);
  CHECK(place.data_rank == 2);
  CHECK(place.context_rank == 1);
}
