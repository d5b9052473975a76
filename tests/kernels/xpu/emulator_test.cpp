// What the emulator says when a kernel breaks a rule: the message names kernel, block, thread and
// fact.
#include "kernels/xpu/emulator.h"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "kernels/support/harness.h"

using namespace lh::test;

namespace {

const bool kAsan = kernel_build() == "asan";

template <class Body>
std::string error_of(const Body& body) {
  try {
    body();
  } catch (const xpu::Error& error) {
    return error.what();
  }
  return "no error";
}

/// Output of a child process that runs the body, and how it ended.
template <class Body>
std::string output_of(const Body& body) {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO);
    dup2(ends[1], STDOUT_FILENO);
    // The sanitizer's handler is wanted, the test runner's is not.
    if (!kAsan) signal(SIGSEGV, SIG_DFL);
    body();
    _exit(0);
  }
  close(ends[1]);
  std::string text;
  char piece[4096];
  for (ssize_t n; (n = read(ends[0], piece, sizeof piece)) > 0;) text.append(piece, n);
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  return text + (status == 0 ? "ended well" : "ended badly");
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("emulator: a fault in a kernel names kernel, block and thread") {
  const std::pair<Fault, std::string> faults[] = {
      {Fault::kNullPointer, "null pointer"},
      {Fault::kWildPointer, "address 0x10f000, which is not mapped"},
      {Fault::kDivision, "division by zero"},
      {Fault::kOverflow, "stack overflow"}};
  for (const auto& [fault, message] : faults) {
    CAPTURE(message);
    Buffer<int> out(6 * 64);
    const auto run = [&, fault = fault] { run_fault(fault, out.get(), 0); };
    const std::string text = kAsan ? output_of(run) : error_of(run);
    CAPTURE(text);
    CHECK(contains(text, "fault_kernel, block (1,2,0), thread 37 (warp 1 lane 5)"));
    if (kAsan) {
      CHECK((contains(text, "AddressSanitizer") || contains(text, "runtime error")));
      CHECK(contains(text, "ended badly"));
    } else {
      CHECK(contains(text, message));
    }
  }
  // The machine is as good as new.
  Buffer<int> out(6 * 64);
  run_fault(Fault::kNone, out.get(), 0);
  CHECK(out.host()[6 * 64 - 1] == 5);
}

TEST_CASE("emulator: a fault outside a kernel stays what it is") {
  if (kAsan) return;
  CHECK(output_of([] {
          Buffer<int> out(6 * 64);
          run_fault(Fault::kNone, out.get(), 0);
          *reinterpret_cast<volatile int*>(0x10f000) = 1;
        }) == "ended badly");
}

TEST_CASE("emulator: launches that no GPU runs are refused") {
  const std::size_t limit = 227 * 1024;
  CHECK(error_of([&] { run_limits(1, 1024, limit); }) == "no error");
  CHECK(contains(error_of([&] { run_limits(1, 1025, 0); }),
                 "nothing_kernel: expected a block of 1 to 1024 threads"));
  CHECK(contains(error_of([&] { run_limits(1, 1025, 0); }), "got (1025, 1, 1)"));
  CHECK(contains(error_of([&] { run_limits(1, 0, 0); }), "got (0, 1, 1)"));
  CHECK(contains(error_of([&] { run_limits(65536, 32, 0); }), "got (1, 65536, 1)"));
  CHECK(contains(error_of([&] { run_limits(1, 32, limit + 1); }),
                 "expected at most 232448 bytes of dynamic shared memory, got 232449"));
}

TEST_CASE("emulator: static and dynamic shared memory count together, red zones do not") {
  const std::size_t rest = (227 - 40) * 1024;
  CHECK(error_of([&] { run_static_and_dynamic(rest); }) == "no error");
  CHECK(contains(
      error_of([&] { run_static_and_dynamic(rest + 16); }),
      "expected at most 232448 bytes of shared memory, got 191504 dynamic and 40960 static"));
}

TEST_CASE("emulator: a named barrier needs whole warps") {
  CHECK(error_of([] { run_partial_arrival(false); }) == "no error");
  const std::string text = error_of([] { run_partial_arrival(true); });
  CAPTURE(text);
  // On a device one lane would count for 32.
  CHECK(contains(text, "named_arrive: needs all 32 lanes"));
}

TEST_CASE("emulator: a conflict of two blocks names both of them, their lines and the byte") {
  if (kernel_build() != "race") return;
  xpu::emu::enable_race_detector();
  Buffer<float> x(3 * 64);
  CHECK(error_of([&] { run_conflict(x.get(), 0); }) == "no error");
  // The kernel's lines, not those of the wrappers it calls.
  const std::string place = " at emulator.cu:";
  const std::string ahead = error_of([&] { run_conflict(x.get(), 1); });
  CAPTURE(ahead);
  CHECK(contains(ahead, "conflict_kernel, block (0,2,0), thread 0"));
  CHECK(contains(ahead, "write-after-write race on global memory at byte 512 of a buffer of 768"));
  CHECK(contains(ahead, ": thread 0 (warp 0 lane 0)" + place));
  CHECK(contains(ahead, "the atomic by block (0,1,0), thread 63 (warp 1 lane 31)" + place));
  const std::string back = error_of([&] { run_conflict(x.get(), -64); });
  CAPTURE(back);
  CHECK(contains(back, "conflict_kernel, block (0,1,0), thread 63"));
  CHECK(contains(back, "at byte 252 of a buffer of 768: thread 63 (warp 1 lane 31)" + place));
  CHECK(contains(back, "the write by block (0,0,0), thread 15 (warp 0 lane 15)" + place));
  // Nothing is left of a launch that failed, nor of one that went well.
  CHECK(error_of([&] { run_conflict(x.get(), 0); }) == "no error");
}
