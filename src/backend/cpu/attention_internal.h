// What the parts of the attention implementation share: operands with their strides, scratch
// memory of a thread, the choice of tile primitives.
#pragma once

#include <omp.h>

#include <cstdint>
#include <limits>
#include <vector>

#include "backend/attention.h"
#include "backend/cpu/attention_geometry.h"
#include "backend/cpu/attention_tiles.h"
#include "base/math.h"
#include "tensor/tensor.h"

namespace lh::cpu {

/// A [rows, heads, d] tensor as bytes; row strides and head strides in elements.
struct HeadRows {
  char* data = nullptr;
  int64_t row_stride = 0, head_stride = 0;
  int d = 0, element_bytes = 0;

  HeadRows() = default;
  explicit HeadRows(const Tensor& t)
      : data(t.raw()),
        row_stride(t.strides()[0]),
        head_stride(t.strides()[1]),
        d(static_cast<int>(t.size(2))),
        element_bytes(static_cast<int>(dtype_size(t.dtype()))) {}
  char* at(int64_t row, int64_t head) const {
    return data + (row * row_stride + head * head_stride) * element_bytes;
  }
};

/// Hands out aligned pieces of one block: first with a null base to measure, then for use.
class Carver {
 public:
  explicit Carver(char* base) : base_(base) {}
  template <typename T = char>
  T* take(int64_t count) {
    char* piece = base_ + used_;
    used_ += round_up(count * static_cast<int64_t>(sizeof(T)), 64);
    return reinterpret_cast<T*>(piece);
  }
  int64_t used() const { return used_; }

 private:
  char* base_;
  int64_t used_ = 0;
};

class PagedRows;

/// The operands of one call. lse and delta are [nq, heads] of Real.
template <typename Real>
struct AttentionCall {
  const AttentionPlan& plan;
  const TileOps<Real>& ops;
  Device device = {};  // the meta device: scratch memory is allocated, nothing is computed
  HeadRows q{}, k{}, v{}, out{}, d_out{}, dq{}, dk{}, dv{};
  Real* lse = nullptr;
  bool biased = false;         // there is a bias, also on the meta device
  const Real* bias = nullptr;  // [nk, kv_heads], or null
  Real* dbias = nullptr;       // likewise, or null: not wanted
  const PagedRows* pages = nullptr;  // forward_decode: keys of segment s in place of its key_begin
  int64_t heads = 0, kv_heads = 0, group = 0;
  int depth = 0, v_depth = 0;  // padded

  int64_t padded_columns(int64_t count) const {
    return round_up(count, static_cast<int64_t>(ops.column_multiple));
  }
  /// Scores are scaled for powers of two, which are cheaper than powers of e.
  Real log2_scale() const {
    return static_cast<Real>(plan.scale * 1.4426950408889634074);  // log2(e)
  }
};

/// The primitives for tensors of `dtype`, the best this machine offers.
template <typename Real>
const TileOps<Real>& tile_ops(DType dtype);

template <typename Real>
void forward_tiles(const AttentionCall<Real>& call, const std::vector<int>& segments);
template <typename Real>
void backward_tiles(const AttentionCall<Real>& call);

/// True when a segment has so few query rows that reading k and v is the whole cost.
bool is_decoding(const AttentionSegment& segment, int64_t group, DType dtype);
/// forward for such segments.
void forward_decode(const AttentionCall<float>& call, const std::vector<int>& segments,
                    DType dtype);

inline constexpr double kLn2 = 0.69314718055994530942;

}  // namespace lh::cpu
