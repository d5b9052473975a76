#include "dist/peers.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <numeric>
#include <sstream>
#include <thread>

#include "base/log.h"
#include "dist/imagined.h"
#include "dist/own_address.h"
#include "dist/socket.h"

namespace lh {

MeshPlace mesh_place(int rank, int size, int64_t data, int64_t context) {
  if (context < 1 || size % context != 0 || (data > 0 && data * context != size))
    fail<ConfigError>("parallel: {} processes do not make {} groups of parallel.context {}; start {} "
                      "processes or change parallel.data and parallel.context",
                      size, data > 0 ? fmt::format("parallel.data {}", data) : "whole", context,
                      data > 0 ? fmt::format("{}", data * context)
                               : fmt::format("a multiple of {}", context));
  MeshPlace place;
  place.context = static_cast<int>(context);
  place.data = size / place.context;
  place.data_rank = rank / place.context;
  place.context_rank = rank % place.context;
  return place;
}

namespace {

using namespace std::chrono_literals;
constexpr char kInterrupted[] = "stopped before all processes had met";
constexpr auto kFarewell = 10s;
constexpr auto kSilence = 2s;  // a process that posts nothing for so long has left without a word

/// A store for those that wait: the job's failure ends the wait, and so does a signal.
class WaitingStore final : public Store {
 public:
  WaitingStore(std::shared_ptr<Store> store, std::function<bool()> stopped)
      : store_(std::move(store)), stopped_(std::move(stopped)) {}

  void set(const std::string& key, const std::string& value) override { store_->set(key, value); }
  std::optional<std::string> find(const std::string& key) override {
    auto value = store_->find(key);
    if (value) return value;
    if (const auto text = store_->find(JobBoard::kFailure)) {
      const JobFailure failure = JobFailure::parse(*text);
      throw PeerFailure(failure.reason, failure.exit_code);
    }
    if (stopped_ && stopped_()) fail<CommInterrupted>(kInterrupted);
    return value;
  }
  std::string set_once(const std::string& key, const std::string& value) override {
    return store_->set_once(key, value);
  }

 private:
  std::shared_ptr<Store> store_;
  std::function<bool()> stopped_;
};

double seconds_of(std::chrono::milliseconds time) {
  return static_cast<double>(time.count()) / 1000;
}

/// "'x' here, 'y' at rank 0" for the first lines that differ.
std::string difference(const std::string& here, const std::string& leaders) {
  std::istringstream ours(here), theirs(leaders);
  for (std::string a, b;;) {
    const bool more = static_cast<bool>(std::getline(ours, a)), other = static_cast<bool>(std::getline(theirs, b));
    if (!more && !other) return "other line ends";
    if (!more || !other || a != b)
      return fmt::format("{} here, {} at rank 0", more ? "'" + a + "'" : "nothing", other ? "'" + b + "'" : "nothing");
  }
}

}  // namespace

Peers::Peers(const PeerPlace& place, const GlooOptions& gloo, std::shared_ptr<Store> store,
             const JobBoard::Options& board, std::function<bool()> stop)
    : place_(place),
      gloo_(gloo),
      patience_(board.patience),
      come_until_(after(gloo.timeout)),
      stopped_(std::move(stop)),
      store_(std::move(store)) {
  if (place.size == 1) return;
  char host[256] = {};
  gethostname(host, sizeof host - 1);
  const std::string who = fmt::format("rank {} (host {}, pid {})", place.rank, host, getpid());
  if (place.imagined) store_ = make_memory_store();
  try {
    if (store_ == nullptr) find_store(who);
    store_ = make_prefix_store(store_, place.attempt + "/");
    waiting_ = std::make_shared<WaitingStore>(store_, stopped_);
    board_ = std::make_shared<JobBoard>(store_, place.rank, place.size, who, board);
  } catch (const CommError&) {
    if (stopped()) fail<CommInterrupted>(kInterrupted);  // and so may the others be
    throw;
  }
}

void Peers::find_store(const std::string& who) {
  Deadline tell = after(patience_);
  const auto waiting = [&](const std::string& reason) {
    if (stopped()) fail<CommInterrupted>(kInterrupted);
    if (std::chrono::steady_clock::now() < tell) return;
    tell = Deadline::max();
    // Of a host's processes one speaks for all.
    if (place_.local_rank == 0 || place_.rank == 1)
      log_warn("[dist] {} still looks for rank 0 at {}: {}", who, place_.master.str(), reason);
  };
  if (place_.rank == 0) {
    server_ = std::make_unique<TcpStoreServer>(Endpoint{"", place_.master.port});
    store_ = server_->store();
    store_->set_once("server", who);
  } else {
    try {
      store_ = connect_tcp_store(place_.master, gloo_.timeout, waiting);
    } catch (const CommInterrupted&) {
      throw;
    } catch (const CommError& error) {
      if (place_.local_rank > 0) throw PeerFailure(error.what(), 1);
      throw;
    }
  }
  while (gloo_.host.empty()) {
    try {
      gloo_.host = own_address(place_.master);
    } catch (const CommError& error) {  // its name may become known later
      if (std::chrono::steady_clock::now() >= come_until_) throw;
      waiting(error.what());
      std::this_thread::sleep_for(100ms);
    }
  }
}

/// Why the others can't find the store that this process serves; "" when they can.
std::string Peers::master_problem() const {
  if (server_ == nullptr) return "";
  std::string reason;
  try {
    const auto found = connect_tcp_store(place_.master, 1s, [&](const std::string& why) { reason = why; });
    if (found->find("server") == server_->store()->find("server")) return "";
    return fmt::format("; {} leads to another job's rank 0", place_.master.str());
  } catch (const CommError& error) {
    return fmt::format("; {} does not lead to this host, where rank 0 is ({}): set MASTER_ADDR to one of its names or "
                       "addresses",
                       place_.master.str(), reason.empty() ? error.what() : reason);
  }
}

std::string Peers::missing(const std::string& key, const std::string& until) {
  std::vector<int> absent, late;
  for (int r = 1; r < place_.size; ++r) {
    if (store_->find(fmt::format("{}/{}", key, r))) continue;
    (store_->find(fmt::format("who/{}", r)) ? late : absent).push_back(r);
  }
  const auto ranks = [](const std::vector<int>& list) {
    return fmt::format("rank{} {}", list.size() == 1 ? "" : "s", JobBoard::ranges(list));
  };
  if (!absent.empty())
    return fmt::format("{} of {} processes did not come to {} {}{}", ranks(absent), place_.size, place_.master.str(),
                       until, master_problem());
  return fmt::format("{} did not answer {}: {}", ranks(late), until, board_->places());
}

void Peers::agree(const std::string& what, const std::string& text) {
  if (place_.size == 1 || place_.imagined) return;
  const std::string key = "agree/" + what, all = key + "/all";
  set_place("start (" + what + ")");
  if (place_.rank != 0) {
    // Rank 0 gives up first, and says for whom it waited.
    const std::string leaders = waiting_->get(key, gloo_.timeout + 5s);
    if (leaders != text)
      fail<ConfigError>("the {} of {} is not that of rank 0: {}; all processes need the same", what,
                        board_->name_of(place_.rank), difference(text, leaders));
    store_->set(fmt::format("{}/{}", key, place_.rank), "");
    waiting_->get(all, gloo_.timeout + 5s);
    return;
  }
  store_->set(key, text);
  const Deadline deadline = after(gloo_.timeout);
  Deadline tell = after(patience_);
  for (int r = 1; r < place_.size;) {
    if (waiting_->find(fmt::format("{}/{}", key, r))) {
      ++r;
      continue;
    }
    const auto now = std::chrono::steady_clock::now();
    if (now >= deadline)
      fail<CommError>("[dist] {}",
                      missing(key, fmt::format("within {} s (LH_COMM_TIMEOUT)", seconds_of(gloo_.timeout))));
    if (now >= tell) {
      tell = Deadline::max();
      log_warn("[dist] waiting: {}", missing(key, "yet"));
    }
    std::this_thread::sleep_for(5ms);
  }
  store_->set(all, "");
}

bool Peers::tells(const std::string& reason, int exit_code) {
  if (board_ == nullptr) return true;
  try {
    return board_->report_failure(reason, exit_code).rank == place_.rank;
  } catch (const CommError&) {
    // The store is gone, so nobody knows who is first; but who sent a signal knows why.
    return !stopped();
  }
}

void Peers::farewell() {
  if (board_ == nullptr) return;
  try {
    store_->set(fmt::format("left/{}", place_.rank), "");
  } catch (const CommError&) {
  }
  if (server_ == nullptr) return;
  struct Post {
    std::optional<std::string> text;
    Deadline changed = std::chrono::steady_clock::now();
  };
  std::vector<Post> posts(static_cast<size_t>(place_.size));
  const auto left = [&](int r) {
    if (store_->find(fmt::format("left/{}", r))) return true;
    Post& post = posts[static_cast<size_t>(r)];
    const auto now = std::chrono::steady_clock::now();
    if (auto text = store_->find(fmt::format("place/{}", r)); text != post.text) post = {text, now};
    // One that has not come may still do so, as long as it would have been waited for.
    return post.text ? now - post.changed > kSilence : now > come_until_;
  };
  for (const Deadline end = after(kFarewell); std::chrono::steady_clock::now() < end && !stopped();) {
    bool all = true;
    for (int r = 1; r < place_.size; ++r) all = left(r) && all;
    if (all) return;
    std::this_thread::sleep_for(20ms);
  }
}

Peers::~Peers() = default;

std::unique_ptr<Communicator> Peers::group(const std::string& name, const std::vector<int>& members) {
  const auto found = std::find(members.begin(), members.end(), place_.rank);
  if (found == members.end()) return nullptr;
  const int rank = static_cast<int>(found - members.begin()), size = static_cast<int>(members.size());
  if (size == 1) return make_self_communicator();
  if (place_.imagined) {
    const auto transport = make_imagined_transport();
    return std::make_unique<Communicator>(name, rank, members, transport, transport, board_);
  }
  const auto own = make_prefix_store(waiting_, fmt::format("group/{}/{}/", name, members[0]));
  const auto control = connect_gloo(own, rank, size, gloo_);
  const bool nccl = place_.device.kind == DeviceKind::kCuda && nccl_unavailable().empty();
  const auto data =
      nccl ? connect_nccl(own, rank, size, place_.device, gloo_.timeout) : control;
  auto group = std::make_unique<Communicator>(name, rank, members, control, data, board_);
  group->barrier("start of group " + name);  // or one could leave while another is still connecting
  return group;
}

std::unique_ptr<Communicator> Peers::world(const std::string& name) {
  std::vector<int> all(static_cast<size_t>(place_.size));
  std::iota(all.begin(), all.end(), 0);
  return group(name, all);
}

void Peers::set_place(const std::string& place) {
  if (board_ != nullptr) board_->set_place(place, false);
}

Mesh Mesh::connect(Peers& job, int64_t data, int64_t context) {
  Mesh mesh;
  mesh.place = mesh_place(job.rank(), job.size(), data, context);
  mesh.world = job.world("world");
  for (int d = 0; d < mesh.place.data; ++d) {
    std::vector<int> members(static_cast<size_t>(mesh.place.context));
    std::iota(members.begin(), members.end(), d * mesh.place.context);
    if (auto group = job.group("context", members)) mesh.context = std::move(group);
  }
  return mesh;
}

}  // namespace lh
