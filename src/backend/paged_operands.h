// Checks of attention over pages that every device makes before it touches memory.
#pragma once

#include "backend/gated_append.h"
#include "backend/operands.h"

namespace lh {

/// ShapeError with `op` and both facts when operands do not fit each other (backend/paged_attention.h,
/// backend/gated_append.h).
void check_paged_attention(const Tensor& q, const PagedKeys& keys, double scale, const Tensor& out,
                           const Tensor& lse, std::string_view op);
void check_gated_append(const Tensor& k, const Tensor& v, const Tensor& gates,
                        const GatedCache& cache, std::string_view op);

}  // namespace lh
