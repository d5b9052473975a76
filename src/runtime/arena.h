// Where tensor bytes come from on the CPU: one large reserved range of addresses, best fit with
// coalescing. Freed blocks are reused at once, so a training step touches the same warm pages
// every time, and huge pages keep address translation cheap.
#pragma once

#include <cstddef>

#include "runtime/memory.h"

namespace lh {

inline constexpr size_t kTensorAlignment = 64;  // one cache line, one AVX-512 register

/// At least `bytes` bytes, aligned to kTensorAlignment, not initialised, charged to `owner`.
/// Throws Error with the owner table when memory is exhausted.
void* cpu_allocate(size_t bytes, MemoryOwner owner);

/// Gives back what cpu_allocate returned for the same bytes and owner.
void cpu_free(void* pointer, size_t bytes, MemoryOwner owner) noexcept;

}  // namespace lh
