// One emulated thread's stack and saved registers. A switch costs a few nanoseconds on x86-64,
// where it is twenty instructions; elsewhere ucontext does it.
#pragma once
#include <cstddef>
#include <memory>

namespace xpu::emu {

class Fiber {
 public:
  explicit Fiber(int index);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// Makes the next resume() call entry() on a fresh stack; entry must end with leave_for_good().
  void prepare(void (*entry)());
  /// Scheduler to fiber.
  void resume();
  /// Fiber to scheduler.
  void leave();
  [[noreturn]] void leave_for_good();

  /// The guard page below the stack, for the fault handler.
  bool guards(const void* address) const;
  void* stack_top() const { return stack_ + stack_bytes_; }

 private:
  char* memory_;
  char* stack_;
  std::size_t stack_bytes_;
  struct Saved;
  std::unique_ptr<Saved> saved_;
};

}  // namespace xpu::emu
