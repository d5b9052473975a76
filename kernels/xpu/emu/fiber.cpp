// Stack switching for the emulator, with the annotations the address sanitizer needs.
#include "kernels/xpu/emu/fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if !defined(__x86_64__) || defined(XPU_UCONTEXT)
#define XPU_USE_UCONTEXT 1
#include <ucontext.h>
#else
#define XPU_USE_UCONTEXT 0
#endif

namespace xpu::emu {

namespace {

constexpr std::size_t kGuardBytes = 4096;
#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kStackBytes = 256 * 1024;
const void* scheduler_stack = nullptr;
std::size_t scheduler_stack_bytes = 0;
void begin_switch(void** fake, const void* stack, std::size_t bytes) {
  __sanitizer_start_switch_fiber(fake, stack, bytes);
}
void end_switch_in_fiber() {
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_bytes);
}
void end_switch_in_scheduler(void* fake) {
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
}
void begin_switch_to_scheduler() {
  __sanitizer_start_switch_fiber(nullptr, scheduler_stack, scheduler_stack_bytes);
}
// An abandoned block leaves poisoned frames behind.
void clear_poison(const void* p, std::size_t bytes) { __asan_unpoison_memory_region(p, bytes); }
#else
constexpr std::size_t kStackBytes = 128 * 1024;
void begin_switch(void**, const void*, std::size_t) {}
void end_switch_in_fiber() {}
void end_switch_in_scheduler(void*) {}
void begin_switch_to_scheduler() {}
void clear_poison(const void*, std::size_t) {}
#endif

void (*next_entry)() = nullptr;

}  // namespace

#if XPU_USE_UCONTEXT

struct Fiber::Saved {
  ucontext_t fiber, scheduler;
  void (*entry)();
};

namespace {
void start() {
  end_switch_in_fiber();
  next_entry();
}
}  // namespace

#else

// Saves the callee-saved registers on the old stack, takes those of the new one.
extern "C" void xpu_switch_stack(void** old_stack, void* new_stack);
asm(R"(
.text
.globl xpu_switch_stack
.type xpu_switch_stack,@function
xpu_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size xpu_switch_stack,.-xpu_switch_stack
)");

struct Fiber::Saved {
  void* fiber = nullptr;
  void* scheduler = nullptr;
  void (*entry)() = nullptr;
};

namespace {
void start() {
  end_switch_in_fiber();
  next_entry();
}
}  // namespace

#endif

Fiber::Fiber(int index) : saved_(std::make_unique<Saved>()) {
  memory_ = static_cast<char*>(mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (memory_ == MAP_FAILED) throw std::bad_alloc();
  mprotect(memory_, kGuardBytes, PROT_NONE);
  stack_ = memory_ + kGuardBytes;
  // Equal distances between stack tops would put every stack into the same cache sets.
  stack_bytes_ = kStackBytes - static_cast<std::size_t>(index) * 320 % 8192;
}

Fiber::~Fiber() {
  clear_poison(stack_, stack_bytes_);
  munmap(memory_, kGuardBytes + kStackBytes);
}

bool Fiber::guards(const void* address) const {
  return address >= memory_ && address < memory_ + kGuardBytes;
}

void Fiber::prepare(void (*entry)()) {
  clear_poison(stack_, stack_bytes_);
  saved_->entry = entry;
#if XPU_USE_UCONTEXT
  getcontext(&saved_->fiber);
  saved_->fiber.uc_stack.ss_sp = stack_;
  saved_->fiber.uc_stack.ss_size = stack_bytes_;
  saved_->fiber.uc_link = nullptr;
  makecontext(&saved_->fiber, start, 0);
#else
  // Six registers and a return address; the stack is 8 below a multiple of 16 at start(), as the
  // ABI has it at a function's first instruction.
  auto* top = reinterpret_cast<std::uintptr_t*>(stack_ + stack_bytes_);
  *--top = 0;
  *--top = reinterpret_cast<std::uintptr_t>(&start);
  for (int i = 0; i < 6; ++i) *--top = 0;
  saved_->fiber = top;
#endif
}

void Fiber::resume() {
  next_entry = saved_->entry;
  void* fake = nullptr;
  begin_switch(&fake, stack_, stack_bytes_);
#if XPU_USE_UCONTEXT
  swapcontext(&saved_->scheduler, &saved_->fiber);
#else
  xpu_switch_stack(&saved_->scheduler, saved_->fiber);
#endif
  end_switch_in_scheduler(fake);
}

void Fiber::leave() {
  begin_switch_to_scheduler();
#if XPU_USE_UCONTEXT
  swapcontext(&saved_->fiber, &saved_->scheduler);
#else
  xpu_switch_stack(&saved_->fiber, saved_->scheduler);
#endif
  end_switch_in_fiber();
}

void Fiber::leave_for_good() {
  leave();
  std::abort();  // unreachable: a finished fiber is never resumed
}

}  // namespace xpu::emu
