#include "backend/utility_gate.h"

#include "backend/operands.h"

namespace lh {

void check_utility_gate(const Tensor& logits, const UtilityGate& gate, std::string_view op) {
  check_contiguous(logits, op, "logits");
  if (logits.rank() != 2)
    fail<ShapeError>("[{}] logits: expected [rows, kv_heads], got {}", op, logits.str());
  if (!(gate.clip >= 0 && gate.clip < 0.5))
    fail<ShapeError>("[{}] clip: expected at least 0 and below 0.5, got {}", op, gate.clip);
  if (!gate.rows.defined()) {
    if (gate.mode == GateMode::kSample)
      fail<ShapeError>("[{}] sampled gates need the numbers of their rows", op);
    return;
  }
  check_shape(gate.rows, {logits.size(0)}, op, "rows");
  check_dtype(gate.rows, DType::kI64, op, "rows");
  check_contiguous(gate.rows, op, "rows");
}

}  // namespace lh
