#include "dist/peers.h"

#include "dist/imagined.h"
#include "dist/own_address.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <numeric>

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

Peers::Peers(const PeerPlace& place, const GlooOptions& gloo, std::shared_ptr<Store> store,
         const JobBoard::Options& board)
    : place_(place), gloo_(gloo), store_(std::move(store)) {
  if (place.size == 1) return;
  if (place.imagined) store_ = make_memory_store();
  if (store_ == nullptr) {
    if (place.rank == 0) server_ = std::make_unique<TcpStoreServer>(Endpoint{"", place.master.port});
    store_ = connect_tcp_store(place.master, gloo.timeout);
    if (gloo_.host.empty()) gloo_.host = own_address(place.master);
  }
  store_ = make_prefix_store(store_, place.attempt + "/");
  char host[256] = {};
  gethostname(host, sizeof host - 1);
  board_ = std::make_shared<JobBoard>(
      store_, place.rank, place.size, fmt::format("rank {} (host {}, pid {})", place.rank, host, getpid()),
      board);
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
  const auto own = make_prefix_store(store_, fmt::format("group/{}/{}/", name, members[0]));
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
