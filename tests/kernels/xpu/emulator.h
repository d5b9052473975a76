// Launchers of kernels that break a rule, for the emulator's messages.
#pragma once
#include <cstddef>

namespace lh::test {

enum class Fault { kNone, kNullPointer, kWildPointer, kDivision, kOverflow };
/// Block (1, 2, 0) thread 37 does it; the others write their index to out[4 * 64].
void run_fault(Fault fault, int* out, int zero);
void run_limits(unsigned grid_y, unsigned threads, std::size_t dynamic_bytes);
/// 40 KiB static beside the dynamic bytes.
void run_static_and_dynamic(std::size_t dynamic_bytes);
/// Two warps; the second arrives with one lane only.
void run_partial_arrival(bool partial);
/// Three blocks (0, y, 0) fill 64 values each; thread 63 of the second adds to the value `reach`
/// from its own.
void run_conflict(float* x, int reach);

}  // namespace lh::test
