// Collectives on 1 to 4 ranks over real connections, as threads and as processes.
#include <doctest/doctest.h>

#include "collectives.h"

using namespace lh;
using namespace lh::test;

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
