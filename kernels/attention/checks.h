// What the launchers of attention refuse, with the same words everywhere. Host only.
#pragma once
#include <string>

#include "kernels/attention/params.h"
#include "kernels/xpu/xpu.h"

namespace lh::kernels::checks {

inline void require(bool condition, const std::string& op, const std::string& what) {
  if (!condition) throw xpu::Error(op + ": " + what);
}

inline void require_tile(int built, int wanted, const std::string& op) {
  require(built == wanted, op,
          "the schedule has tiles of " + std::to_string(wanted) + " rows, got " +
              std::to_string(built));
}

/// Head sizes up to `most`, heads, scale and mask of a params struct over T.
template <template <class> class Params, class T>
void require_shape(const Params<T>& p, const std::string& op, int most = 256) {
  constexpr int kUnit = sizeof(T) == 4 ? 4 : 16;  // a vector load; a step of the tensor cores
  const auto supported = [&](int dim) { return dim > 0 && dim <= most && dim % kUnit == 0; };
  require(supported(p.head_dim) && supported(p.value_dim), op,
          "head dims are multiples of " + std::to_string(kUnit) + " up to " + std::to_string(most) +
              ", got " + std::to_string(p.head_dim) + " and " + std::to_string(p.value_dim));
  require(p.heads > 0 && p.kv_heads > 0 && p.heads % p.kv_heads == 0, op,
          "heads is a multiple of kv_heads, got " + std::to_string(p.heads) + " and " +
              std::to_string(p.kv_heads));
  require(p.scale > 0, op, "scale is above 0, got " + std::to_string(p.scale));
  const AttentionMask& m = p.mask;
  require(m.window >= 0 && m.sinks >= 0 && m.bias_window >= 0, op,
          "window, sinks and bias_window are not negative, got " + std::to_string(m.window) + ", " +
              std::to_string(m.sinks) + " and " + std::to_string(m.bias_window));
  require(m.causal || (m.window == 0 && m.sinks == 0), op,
          "window and sinks need a causal mask, got " + std::to_string(m.window) + " and " +
              std::to_string(m.sinks) + " without");
}

template <class T>
void require_rows(const T* base, std::int64_t stride, const std::string& op, const char* name) {
  require(reinterpret_cast<std::uintptr_t>(base) % 16 == 0 && stride * sizeof(T) % 16 == 0, op,
          std::string(name) + " has 16-byte aligned rows, got base " +
              std::to_string(reinterpret_cast<std::uintptr_t>(base) % 16) + " and row stride " +
              std::to_string(stride) + " of " + std::to_string(sizeof(T)) + " bytes");
}

/// Copies of open keys, if any, are those of a bias that every query beyond its window adds, laid out
/// by this row count.
template <class Params>
void require_open_keys(const Params& p, const std::string& op) {
  require(!p.open.before || (p.bias && p.key_rows > 0 && p.mask.window == 0), op,
          "open keys come with the bias they were chosen by, its key_rows and a mask without a window, "
          "got " + std::string(p.bias ? "a" : "no") + " bias, " + std::to_string(p.key_rows) +
              " key rows and a window of " + std::to_string(p.mask.window));
  require(!p.open.before || (p.open.k && p.open.v && p.open.bias), op,
          "open keys come with copies of k, v and bias, got none of some");
}

/// Closed runs, if any, are those of a bias, with the row count that they are laid out by.
template <class Params>
void require_closed_runs(const Params& p, const std::string& op) {
  require(!p.closed_runs || (p.bias && p.key_rows > 0), op,
          "closed_runs come with the bias they were made from and its key_rows, got " +
              std::string(p.bias ? "a" : "no") + " bias and " + std::to_string(p.key_rows) +
              " key rows");
}

}  // namespace lh::kernels::checks
