// A short list of dimension sizes (or strides), kept inline.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "base/error.h"

namespace lh {

class Shape {
 public:
  static constexpr int kMaxRank = 6;

  Shape() = default;
  Shape(std::initializer_list<int64_t> sizes) : Shape(std::span(sizes.begin(), sizes.size())) {}
  explicit Shape(std::span<const int64_t> sizes) : rank_(static_cast<int>(sizes.size())) {
    LH_CHECK(rank_ <= kMaxRank, "tensors have at most {} dimensions, got {}", kMaxRank, rank_);
    for (int i = 0; i < rank_; ++i) sizes_[i] = sizes[i];
  }

  int rank() const { return rank_; }
  /// Negative positions count from the end.
  int64_t operator[](int i) const { return sizes_[position(i)]; }
  int64_t& operator[](int i) { return sizes_[position(i)]; }
  int64_t numel() const {
    int64_t product = 1;
    for (int i = 0; i < rank_; ++i) product *= sizes_[i];
    return product;
  }
  std::span<const int64_t> sizes() const { return {sizes_.data(), static_cast<size_t>(rank_)}; }
  bool operator==(const Shape& other) const {
    if (rank_ != other.rank_) return false;
    for (int i = 0; i < rank_; ++i)
      if (sizes_[i] != other.sizes_[i]) return false;
    return true;
  }
  /// "[2, 3, 4]"
  std::string str() const;

 private:
  int position(int i) const {
    const int at = i < 0 ? i + rank_ : i;
    LH_CHECK(at >= 0 && at < rank_, "dimension {} of a rank {} shape", i, rank_);
    return at;
  }
  int rank_ = 0;
  std::array<int64_t, kMaxRank> sizes_{};
};

}  // namespace lh
