// Faults inside a kernel: a wild pointer, a stack overflow or an integer division by zero becomes
// an xpu::Error that names kernel, block and thread, like every broken rule. Under the address
// sanitizer its own report stays, and one line beside it says who ran.
#pragma once
#include <csignal>
#include <memory>

namespace xpu::emu {

/// Handles faults while it lives: one per launch, so that a test runner's handlers stay its own.
class FaultGuard {
 public:
  FaultGuard();
  ~FaultGuard();
  FaultGuard(const FaultGuard&) = delete;
  FaultGuard& operator=(const FaultGuard&) = delete;

 private:
  struct Saved;
  std::unique_ptr<Saved> saved_;
};

}  // namespace xpu::emu
