#include "dist/job_board.h"

#include <cstdio>
#include <map>

#include <fmt/format.h>

#include "base/log.h"
#include "dist/comm_error.h"

namespace lh {
namespace {

constexpr int kWrongUse = 2;  // the exit code of a ConfigError

std::string place_key(int rank) {
  return fmt::format("place/{}", rank);
}

}  // namespace

std::string JobFailure::text() const {
  return fmt::format("{} {} {}", rank, exit_code, reason);
}

JobFailure JobFailure::parse(const std::string& text) {
  JobFailure failure;
  int begin = 0;
  if (std::sscanf(text.c_str(), "%d %d %n", &failure.rank, &failure.exit_code, &begin) != 2)
    fail<CommError>("[store] '{}' is no failure", text);
  failure.reason = text.substr(static_cast<size_t>(begin));
  return failure;
}

std::string JobBoard::ranges(const std::vector<int>& ranks) {
  std::string text;
  for (size_t i = 0; i < ranks.size();) {
    size_t j = i;
    while (j + 1 < ranks.size() && ranks[j + 1] == ranks[j] + 1) ++j;
    text += fmt::format("{}{}", text.empty() ? "" : ", ", ranks[i]);
    if (j > i) text += fmt::format("-{}", ranks[j]);
    i = j + 1;
  }
  return text;
}

JobBoard::JobBoard(std::shared_ptr<Store> store, int rank, int size, std::string who,
                   const Options& options)
    : store_(std::move(store)), rank_(rank), size_(size), who_(std::move(who)), options_(options) {
  if (const std::string first = store_->set_once(fmt::format("who/{}", rank_), who_); first != who_) {
    const std::string reason = fmt::format("{} has come already, and this is {}: every process needs its own RANK, "
                                           "and every job its own MASTER_PORT",
                                           first, who_);
    const JobFailure known = report_failure(reason, kWrongUse);
    if (known.reason != reason) throw PeerFailure(known.reason, known.exit_code);
    throw ConfigError(reason);
  }
  thread_ = std::thread([this] { run(); });
}

JobBoard::~JobBoard() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void JobBoard::run() {
  // A post is "<beat> <place>": it changes as long as the process lives.
  for (int64_t beat = 0;; ++beat) {
    std::string place, late;
    {
      std::unique_lock lock(mutex_);
      if (stop_) return;
      for (auto& [group, wait] : waits_) {
        place += (place.empty() ? "" : " and ") + wait.place;
        if (wait.warned || std::chrono::steady_clock::now() - wait.since <= options_.patience)
          continue;
        wait.warned = true;
        late = wait.place;
      }
      if (place.empty()) place = place_;
    }
    try {
      store_->set(place_key(rank_), fmt::format("{} {}", beat, place));
      // One of those that wait there tells for all.
      if (!late.empty() && store_->set_once("late/" + late, who_) == who_)
        log_warn("[dist] {} has waited {} s in {}: {}", who_,
                 static_cast<double>(options_.patience.count()) / 1000, late, places());
    } catch (const CommError&) {
      return;  // the store is gone: the next collective says so
    }
    std::unique_lock lock(mutex_);
    wake_.wait_for(lock, options_.beat, [this] { return stop_; });
  }
}

void JobBoard::set_place(const std::string& place, bool waits, const std::string& group) {
  const std::lock_guard lock(mutex_);
  if (waits) {
    waits_[group] = {place, std::chrono::steady_clock::now()};
  } else {
    waits_.erase(group);
    place_ = place;
  }
}

std::string JobBoard::name_of(int rank) {
  return store_->find(fmt::format("who/{}", rank)).value_or(fmt::format("rank {}", rank));
}

std::string JobBoard::places() {
  std::map<std::string, std::vector<int>> ranks;
  for (int r = 0; r < size_; ++r) {
    const std::string post = store_->find(place_key(r)).value_or("0 not started");
    ranks[post.substr(post.find(' ') + 1)].push_back(r);
  }
  std::string text;
  for (const auto& [place, members] : ranks) {
    if (!text.empty()) text += "; ";
    if (members.size() == 1) text += fmt::format("{} is in {}", name_of(members[0]), place);
    else text += fmt::format("ranks {} are in {}", ranges(members), place);
  }
  return text;
}

std::vector<int> JobBoard::gone() {
  std::vector<std::optional<std::string>> before;
  for (int r = 0; r < size_; ++r) before.push_back(store_->find(place_key(r)));
  std::this_thread::sleep_for(3 * options_.beat);
  std::vector<int> ranks;
  for (int r = 0; r < size_; ++r)
    if (r != rank_ && store_->find(place_key(r)) == before[static_cast<size_t>(r)])
      ranks.push_back(r);
  return ranks;
}

JobFailure JobBoard::report_failure(const std::string& reason, int exit_code) {
  return JobFailure::parse(store_->set_once(kFailure, JobFailure{rank_, exit_code, reason}.text()));
}

std::optional<JobFailure> JobBoard::failure() {
  const auto text = store_->find(kFailure);
  return text ? std::optional(JobFailure::parse(*text)) : std::nullopt;
}

}  // namespace lh
