// What a test does to the fake NCCL, and what it has seen. FAKE_NCCL_LAG: milliseconds from a call to its effect.
#pragma once

#include <atomic>

namespace lh::test {

inline constexpr int kNobody = -1;

struct FakeNccl {
  std::atomic<int> absent{kNobody};    // a rank that never comes to the start of a group
  std::atomic<int> silent{kNobody};    // a rank whose device never gets to its exchanges
  std::atomic<int> stuck{kNobody};     // a rank whose calls never get beyond ncclInProgress
  std::atomic<int> cut_off{kNobody};   // a rank that is told of a remote error while an exchange is under way
  std::atomic<int> refused{kNobody};   // a peer to which nothing can be sent
  std::atomic<int> alive{0}, aborted{0}, destroyed{0};  // communicators; a call on one that is none ends the test
  std::atomic<int> open_groups{0};     // ncclGroupStart without its end

  void reset() {
    for (auto* rank : {&absent, &silent, &stuck, &cut_off, &refused}) *rank = kNobody;
    for (auto* count : {&aborted, &destroyed}) *count = 0;
  }
};

FakeNccl& fake_nccl();

}  // namespace lh::test
