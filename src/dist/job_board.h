// Where every process of a job is, and what failed first: posted to the store by a thread, so that a process
// that waits can say for whom, and all processes print one cause.
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "dist/store.h"

namespace lh {

/// The failure that ended a job, as the process that reported it tells it.
struct JobFailure {
  int rank = 0;       // of that process
  int exit_code = 1;  // with which it ends
  std::string reason;

  std::string text() const;
  static JobFailure parse(const std::string& text);
};

class JobBoard {
 public:
  struct Options {
    std::chrono::milliseconds beat{250};      // how often this process posts
    std::chrono::milliseconds patience{5000};  // a collective that takes longer prints who is where
  };

  /// Where the first failure stands in the store.
  static constexpr const char* kFailure = "failure";

  /// `who`: "rank 3 (host a, pid 17)". The thread runs until destruction. ConfigError when another process has
  /// this rank.
  JobBoard(std::shared_ptr<Store> store, int rank, int size, std::string who, const Options& options);
  ~JobBoard();
  JobBoard(const JobBoard&) = delete;
  JobBoard& operator=(const JobBoard&) = delete;

  /// What this process does now. `waits`: in a collective of `group`, whose lateness is worth a line. One
  /// thread for each group.
  void set_place(const std::string& place, bool waits, const std::string& group = "");

  /// "rank 3 (host b, pid 9) is in checkpoint.save; ranks 0-2 are in grad all-reduce, step 17".
  std::string places();

  /// Ranks whose posts have stopped. Takes about three beats.
  std::vector<int> gone();
  std::string name_of(int rank);
  /// "0-2, 5" for 0, 1, 2, 5.
  static std::string ranges(const std::vector<int>& ranks);

  /// Records the job's first failure and returns it: an earlier one if there is one. The process whose own comes
  /// back is the one that tells people.
  JobFailure report_failure(const std::string& reason, int exit_code = 1);
  std::optional<JobFailure> failure();

 private:
  struct Wait {
    std::string place;
    std::chrono::steady_clock::time_point since;
    bool warned = false;
  };
  void run();

  std::shared_ptr<Store> store_;
  const int rank_, size_;
  const std::string who_;
  const Options options_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::string place_ = "start";        // while it waits for nothing
  std::map<std::string, Wait> waits_;  // by group
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace lh
