// Signals of a kernel's thread, turned into a failure of its block.
#include "kernels/xpu/emu/fault.h"

#include <ucontext.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <string>

#include "kernels/xpu/emu/core.h"
#include "kernels/xpu/emu/fiber.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace xpu::emu {

#if defined(__SANITIZE_ADDRESS__)

namespace {
void say_who() {
  if (!running_fiber()) return;
  const std::string line = "xpu: in " + running_place() + "\n";
  if (write(STDERR_FILENO, line.data(), line.size()) < 0) return;
}
}  // namespace

// The undefined-behaviour sanitizer has a hook of its own.
extern "C" void __ubsan_on_report() {
  say_who();
}

struct FaultGuard::Saved {};
FaultGuard::FaultGuard() {
  __sanitizer_set_death_callback(say_who);
}
FaultGuard::~FaultGuard() {
  __sanitizer_set_death_callback(nullptr);
}

#else

namespace {

constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGFPE};
constexpr std::size_t kStackBytes = 64 * 1024;
struct sigaction before[3];
std::string message;

[[noreturn]] void land() {
  fail_in_place({nullptr, 0}, message);
}

std::string hexadecimal(std::uintptr_t x) {
  std::string digits;
  do {
    digits.insert(digits.begin(), "0123456789abcdef"[x % 16]);
    x /= 16;
  } while (x);
  return "0x" + digits;
}

/// The thread goes on in land(), on its own stack from the top: nothing below is needed again.
/// Elsewhere, and outside kernels, the fault repeats under the handlers from before.
void on_fault(int signal, siginfo_t* info, void* context) {
  Fiber* fiber = running_fiber();
#if defined(__x86_64__)
  if (fiber) {
    const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
    if (signal == SIGFPE) {
      message = "integer division by zero, or of the smallest integer by -1";
    } else if (fiber->guards(info->si_addr)) {
      message = "stack overflow: the thread's local variables and calls need too much memory";
    } else if (address < 4096) {
      message = "access through a null pointer (address " + hexadecimal(address) + ")";
    } else {
      message = "access to address " + hexadecimal(address) + ", which is not mapped";
    }
    auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
    // As after a call: 8 below a multiple of 16.
    registers[REG_RSP] =
        static_cast<greg_t>(reinterpret_cast<std::uintptr_t>(fiber->stack_top()) / 16 * 16 - 8);
    registers[REG_RIP] = reinterpret_cast<greg_t>(&land);
    return;
  }
#endif
  (void)info, (void)context, (void)fiber;
  for (int i = 0; i < 3; ++i) {
    if (kSignals[i] == signal) sigaction(signal, &before[i], nullptr);
  }
}

}  // namespace

struct FaultGuard::Saved {
  stack_t stack;
};

FaultGuard::FaultGuard() : saved_(std::make_unique<Saved>()) {
  static char handler_stack[kStackBytes];  // a thread's own may have overflowed
  stack_t stack{};
  stack.ss_sp = handler_stack;
  stack.ss_size = kStackBytes;
  sigaltstack(&stack, &saved_->stack);
  struct sigaction action {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  for (int i = 0; i < 3; ++i) sigaction(kSignals[i], &action, &before[i]);
}

FaultGuard::~FaultGuard() {
  for (int i = 0; i < 3; ++i) sigaction(kSignals[i], &before[i], nullptr);
  sigaltstack(&saved_->stack, nullptr);
}

#endif

}  // namespace xpu::emu
