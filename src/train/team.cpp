#include "train/team.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <sstream>

#include "config/load.h"
#include "launch/process_context.h"
#include "train/run_state.h"
#include "train/signals.h"

namespace lh {
namespace {

template <typename T>
std::vector<T> chosen(const std::vector<T>& values, const RowSet& rows) {
  std::vector<T> result;
  for (const RowRange& range : rows)
    result.insert(result.end(), values.begin() + range.begin, values.begin() + range.end);
  return result;
}

/// YAML in blocks with all parents' keys in each line, so that a line says by itself what it is about.
std::string keyed_lines(const std::string& yaml) {
  std::istringstream lines(yaml);
  std::vector<std::pair<size_t, std::string>> parents;  // where each is indented
  std::string result;
  for (std::string line; std::getline(lines, line);) {
    const size_t indent = std::min(line.find_first_not_of(" -"), line.size());
    while (!parents.empty() && parents.back().first >= indent) parents.pop_back();
    for (const auto& [at, key] : parents) result += key + ".";
    const std::string text = line.substr(indent);
    if (text.ends_with(':')) parents.emplace_back(indent, text.substr(0, text.size() - 1));
    result += text + "\n";
  }
  return result;
}

}  // namespace

Team::Team(std::shared_ptr<Peers> job, const ParallelConfig& config)
    : job_(std::move(job)),
      shares_optimizer_(config.zero > 0),
      order_(config.layout == "contiguous" ? ContextOrder::kContiguous : ContextOrder::kZigzag),
      mesh_(Mesh::connect(*job_, config.data, config.context)) {
  if (config.overlap && !alone()) gradients_ = job_->world("gradients");
}

ShardPlace Team::shard_place() const {
  return shares_optimizer_ ? ShardPlace{rank(), world_size()} : ShardPlace{};
}

SequenceShare Team::share(int64_t sequences, int64_t micro_sequences) const {
  const int64_t groups = place().data, group = place().data_rank;
  if (sequences < groups)
    fail<ConfigError>("schedule.batch_tokens: a step of {} sequences cannot feed {} data groups; raise it, or "
                      "raise parallel.context above {}",
                      sequences, groups, place().context);
  SequenceShare share;
  share.first = sequences * group / groups;
  share.count = sequences * (group + 1) / groups - share.first;
  share.micro_sequences = std::min(micro_sequences, share.count);
  return share;
}

Batch Team::rows(const Batch& batch) const {
  if (place().context == 1) return batch;
  const auto held = shard_rows(batch.segment_offsets.back(), place().context, order_);
  const RowSet& mine = held[static_cast<size_t>(place().context_rank)];
  Batch part = batch;
  part.tokens = chosen(batch.tokens, mine);
  part.targets = chosen(batch.targets, mine);
  part.positions = chosen(batch.positions, mine);
  if (!batch.row_numbers.empty()) part.row_numbers = chosen(batch.row_numbers, mine);
  return part;
}

BatchTensors Team::tensors(const Batch& batch, Device device) const {
  if (place().context == 1) return BatchTensors::from(batch, device);
  const Batch part = rows(batch);
  const MemoryScope scope(MemoryOwner::kData);
  const auto count = static_cast<int64_t>(part.tokens.size());
  return {Tensor::from(part.tokens, {count}).to(device),
          Tensor::from(part.targets, {count}).to(device),
          BatchTensors::numbered(
              SequenceLayout::shared(
                  std::make_shared<const ContextLayout>(batch.segment_offsets, order_, context()), device),
              part, device)};
}

void Team::sum(Tensor& t, const std::string& label) const {
  if (!alone()) world().all_reduce(t, ReduceOp::kSum, label);
}

bool Team::any(bool here, const std::string& label) const {
  if (alone()) return here;
  Tensor flag = Tensor::from(std::vector<int32_t>{here ? 1 : 0}, {1});
  world().all_reduce(flag, ReduceOp::kMax, label);
  return flag.data<int32_t>()[0] != 0;
}

int64_t Team::least(int64_t value, const std::string& label) const {
  if (alone()) return value;
  Tensor t = Tensor::from(std::vector<int64_t>{-value}, {1});
  world().all_reduce(t, ReduceOp::kMax, label);
  return -t.data<int64_t>()[0];
}

void Team::spread(Tensor& t, const std::string& label) const {
  if (!alone()) world().broadcast(t, 0, label);
}

int64_t Team::spread(int64_t value, const std::string& label) const {
  Tensor t = Tensor::from(std::vector<int64_t>{value}, {1});
  spread(t, label);
  return t.data<int64_t>()[0];
}

Tensor Team::gather(const Tensor& part, const std::vector<int64_t>& sizes,
                    const std::string& label) const {
  const Tensor host = part.to(kCpuDevice).reshape({part.numel()});
  std::vector<int64_t> to_leader(sizes.size());
  to_leader[0] = host.numel();
  const std::vector<int64_t> arriving = leads() ? sizes : std::vector<int64_t>(sizes.size());
  Tensor whole =
      Tensor::empty({std::accumulate(arriving.begin(), arriving.end(), int64_t{0})}, host.dtype());
  world().all_to_all_v(host, to_leader, whole, arriving, label);
  return whole;
}

void Team::scatter(const Tensor& whole, const std::vector<int64_t>& sizes, Tensor& part,
                   const std::string& label) const {
  const std::vector<int64_t> leaving = leads() ? sizes : std::vector<int64_t>(sizes.size());
  std::vector<int64_t> from_leader(sizes.size());
  from_leader[0] = part.numel();
  const Tensor source = leads() ? whole.to(kCpuDevice).reshape({whole.numel()})
                                : Tensor::empty({0}, part.dtype());
  Tensor host = Tensor::empty(part.shape(), part.dtype());
  world().all_to_all_v(source, leaving, host, from_leader, label);
  part.copy_bytes_from(host);
}

void Team::set_step(int64_t step) const {
  world().set_step(step);
  context().set_step(step);
  if (gradients_ != nullptr) gradients_->set_step(step);
}

std::shared_ptr<Peers> peers_of_environment() {
  const ProcessContext context = process_context(current_environment());
  PeerPlace place;
  place.rank = static_cast<int>(context.rank);
  place.size = static_cast<int>(context.world_size);
  place.local_rank = static_cast<int>(context.local_rank);
  place.master = {context.master_addr, static_cast<uint16_t>(context.master_port)};
  place.attempt = fmt::format("{}", context.generation);
  GlooOptions gloo;
  if (const char* host = std::getenv("LH_HOST")) gloo.host = host;
  else if (context.nodes == 1) gloo.host = "127.0.0.1";
  if (const char* text = std::getenv("LH_COMM_TIMEOUT")) {
    char* end = nullptr;
    const double seconds = std::strtod(text, &end);
    if (*text == '\0' || *end != '\0' || !(seconds > 0 && seconds <= 1e6))
      fail<ConfigError>("LH_COMM_TIMEOUT={}: expected seconds above 0", text);
    gloo.timeout = std::chrono::milliseconds(static_cast<int64_t>(1000 * seconds));
  }
  return std::make_shared<Peers>(place, gloo, nullptr, JobBoard::Options{}, [] { return stop_signal() != 0; });
}

std::unique_ptr<Team> make_team(std::shared_ptr<Peers> job, const Recipe& recipe, const std::string& version) {
  job->agree("program", fmt::format("longhand {}\nWORLD_SIZE {}", version, job->size()));
  job->agree("recipe", keyed_lines(dump_recipe(recipe)));
  const Device device = resolve_device(recipe.run.device, job->local_rank());
  job->agree("device", fmt::format("run.device: {}\nprecision.compute: {}", device.is_cpu() ? "cpu" : "cuda",
                                   dtype_name(resolve_compute(recipe.precision, device))));
  job->use_device(device);
  return std::make_unique<Team>(std::move(job), recipe.parallel);
}

}  // namespace lh
