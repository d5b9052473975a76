// Embedding lookup, the stable sort by id, and the gradient, against loops in fp64.
#include "kernels/embedding/embedding.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/embedding/sort.h"
#include "kernels/support/harness.h"

using namespace lh;
using namespace lh::test;
using xpu::bf16;

namespace {

std::vector<std::int32_t> random_ids(int n, int vocab, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::int32_t> ids(n);
  for (auto& id : ids) id = static_cast<std::int32_t>(random() % vocab);
  return ids;
}

void sort_case(const std::vector<std::int32_t>& ids, int vocab) {
  const int n = static_cast<int>(ids.size());
  CAPTURE(n);
  CAPTURE(vocab);
  Buffer<std::int32_t> bi(ids), order(n), keys(n), work(kernels::sort_workspace(n));
  kernels::sort_by_id({bi.get(), order.get(), keys.get(), work.get(), n, vocab}, nullptr);
  const auto key = [&](int i) { return ids[i] < 0 || ids[i] >= vocab ? vocab : ids[i]; };
  std::vector<std::int32_t> want(n), want_keys(n);
  std::iota(want.begin(), want.end(), 0);
  std::stable_sort(want.begin(), want.end(), [&](int a, int b) { return key(a) < key(b); });
  for (int i = 0; i < n; ++i) want_keys[i] = key(want[i]);
  CHECK(order.host() == want);
  CHECK(keys.host() == want_keys);
}

template <class T>
void gradient_case(const std::vector<std::int32_t>& ids, int vocab, int dim) {
  const int n = static_cast<int>(ids.size());
  CAPTURE(n);
  CAPTURE(vocab);
  CAPTURE(dim);
  const auto dy = random_values<T>(static_cast<std::size_t>(n) * dim, 1);
  const auto before = random_values<float>(static_cast<std::size_t>(vocab) * dim, 2);
  std::vector<double> want = to_double(before);
  for (int i = 0; i < n; ++i) {
    if (ids[i] < 0 || ids[i] >= vocab) continue;
    for (int c = 0; c < dim; ++c)
      want[static_cast<std::size_t>(ids[i]) * dim + c] +=
          0.5 * xpu::to_float(dy[static_cast<std::size_t>(i) * dim + c]);
  }
  std::vector<float> first;
  for (int repeat = 0; repeat < 2; ++repeat) {
    Buffer<std::int32_t> bi(ids), work(kernels::embedding_bwd_workspace(n, dim));
    Buffer<T> bdy(dy);
    Buffer<float> dw(before);
    kernels::EmbeddingBwdParams<T> p;
    p.ids = bi.get();
    p.dy = bdy.get();
    p.dweight = dw.get();
    p.workspace = work.get();
    p.n = n;
    p.dim = dim;
    p.vocab = vocab;
    p.scale = 0.5f;
    kernels::embedding_bwd(p, nullptr);
    check_close(dw.host(), want, 1e-5, 2e-5, "dweight");
    if (repeat == 0) first = dw.host();
    else CHECK(dw.host() == first);
  }
}

}  // namespace

TEST_CASE("ids are sorted stably and those outside the vocabulary come last") {
  for_each_mode([] {
    sort_case({3}, 5);
    sort_case({2, -1, 0, 9, 2, 0}, 3);
    sort_case(random_ids(2048, 16, 1), 16);
    sort_case(random_ids(5000, 300, 2), 300);
    sort_case(random_ids(2500, 50257, 3), 50257);
  });
}

TEST_CASE("embedding rows are looked up and scaled") {
  for_each_mode([] {
    for (const int dim : {5, 24}) {
      const auto weight = random_values<bf16>(static_cast<std::size_t>(7 * dim), 1);
      const std::vector<std::int32_t> ids = {6, 0, 3, 3, 1};
      Buffer<bf16> bw(weight), y(ids.size() * dim);
      Buffer<std::int32_t> bi(ids);
      kernels::embedding_fwd<bf16>({bw.get(), bi.get(), y.get(), 5, dim, 7, 2.0f}, nullptr);
      std::vector<double> want;
      for (const int id : ids)
        for (int c = 0; c < dim; ++c) want.push_back(2.0 * xpu::to_float(weight[id * dim + c]));
      check_close(y.host(), want, 0, 0, "y");
    }
  });
}

TEST_CASE("an id outside the vocabulary gives a NaN row and reads nothing") {
  Buffer<float> weight(std::vector<float>(12, 1.0f)), y(12);
  Buffer<std::int32_t> ids(std::vector<std::int32_t>{3, -1, 2});
  kernels::embedding_fwd<float>({weight.get(), ids.get(), y.get(), 3, 4, 3, 1.0f}, nullptr);
  const auto got = y.host();
  for (int i = 0; i < 8; ++i) CHECK(std::isnan(got[i]));
  for (int i = 8; i < 12; ++i) CHECK(got[i] == 1.0f);
}

TEST_CASE("embedding gradients add up repeated ids within and across runs bitwise repeatably") {
  for_each_mode([] {
    gradient_case<float>(random_ids(10, 4, 4), 4, 8);
    gradient_case<bf16>(random_ids(300, 5, 5), 5, 12);
    gradient_case<float>(random_ids(200, 1000, 6), 1000, 3);
    gradient_case<float>(std::vector<std::int32_t>(500, 2), 4, 8);  // one id over eight runs
    gradient_case<bf16>({0, 7, -3, 1, 1, 9}, 7, 4);
    std::vector<std::int32_t> edges(128, 1);  // runs end exactly where the id does
    edges.resize(192, 2);
    edges.push_back(3);
    gradient_case<float>(edges, 4, 4);
  });
}
