// Copies of the keys that a bias per key leaves open, so that the cost of attention follows their
// number.
#pragma once
#include "kernels/attention/params.h"

namespace lh::kernels {

template <class T>
struct AttentionOpenKeysParams {
  const T* k = nullptr;         // [nk, kv_heads, head_dim], as attention takes them
  const T* v = nullptr;         // [nk, kv_heads, value_dim]
  const float* bias = nullptr;  // [nk, kv_heads]; -inf closes a key
  std::int64_t k_stride = 0, v_stride = 0;
  int key_rows = 0, kv_heads = 0, head_dim = 0, value_dim = 0;
  void* workspace = nullptr;    // attention_open_keys_bytes, 16-byte aligned
};

/// Of the workspace: as many rows as there are keys, whatever the bias closes, since the host does not
/// know.
template <class T>
std::size_t attention_open_keys_bytes(int key_rows, int kv_heads, int head_dim, int value_dim);

/// Fills the workspace in stream order and says where in it the copies lie. For T = float and xpu::bf16.
/// Without keys there are none. Throws xpu::Error for rows or a workspace that are not 16-byte aligned.
template <class T>
AttentionOpenKeys<T> attention_open_keys(const AttentionOpenKeysParams<T>& p, xpu::Stream stream);

}  // namespace lh::kernels
