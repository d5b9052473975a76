// Keys of sequences of given lengths in shuffled pages of one pool.
#pragma once

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "backend/gated_append.h"
#include "support/compare.h"

namespace lh::test {

struct PagedCase {
  std::vector<int64_t> lengths;
  int64_t heads = 2, d = 16, v_d = 16, page_rows = 16;

  int64_t table_width() const {
    return *std::max_element(lengths.begin(), lengths.end()) / page_rows + 2;
  }
  int64_t pages() const { return static_cast<int64_t>(lengths.size()) * table_width(); }

  /// [sequences, table_width()], every page once.
  Tensor table() const {
    std::vector<int32_t> pages(static_cast<size_t>(this->pages()));
    std::iota(pages.begin(), pages.end(), 0);
    std::mt19937 random(3);
    std::shuffle(pages.begin() + static_cast<std::ptrdiff_t>(pages.size() / 2), pages.end(), random);
    return Tensor::from(pages, {static_cast<int64_t>(lengths.size()), table_width()});
  }
  Tensor length_tensor() const {
    const std::vector<int32_t> narrow(lengths.begin(), lengths.end());
    return Tensor::from(narrow, {static_cast<int64_t>(narrow.size())});
  }
  Shape pool(int64_t width) const { return {pages(), page_rows, width}; }
  PagedKeys keys(const Tensor& k, const Tensor& v, const Tensor& table,
                 const Tensor& lengths_on_device) const {
    return {k, v, table, lengths_on_device, lengths};
  }
};

/// Empty caches of `heads` kv heads; pools are zeros, tables shuffled.
inline GatedCache empty_cache(int64_t heads, int64_t window, int64_t most, int64_t d, DType dtype,
                              Device device) {
  PagedCase c;
  c.lengths.assign(static_cast<size_t>(heads), most);
  GatedCache cache;
  cache.keys = c.keys(Tensor::zeros(c.pool(d), dtype, device), Tensor::zeros(c.pool(d), dtype, device),
                      c.table().to(device), Tensor::zeros({heads}, DType::kI32, device));
  cache.seen = Tensor::zeros({heads}, DType::kI32, device);
  cache.bits = Tensor::zeros({heads, window}, DType::kU8, device);
  return cache;
}

/// Hard gates [tokens, heads], about half of them open.
inline Tensor random_gates(int64_t tokens, int64_t heads, DType dtype, uint64_t seed) {
  const auto values = to_doubles(random_tensor({tokens, heads}, DType::kF64, seed));
  Tensor gates = Tensor::empty({tokens, heads}, dtype == DType::kF64 ? DType::kF64 : DType::kF32);
  std::vector<double> hard;
  for (const double value : values) hard.push_back(value > 0 ? 0 : -INFINITY);
  assign(gates, hard);
  return gates;
}

}  // namespace lh::test
