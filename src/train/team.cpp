#include "train/team.h"

#include <algorithm>
#include <cstdlib>

#include "backend/elementwise.h"
#include "base/hash.h"
#include "launch/process_context.h"

namespace lh {
namespace {

/// Gradients travel in buckets: large enough that latency does not matter, small beside the model.
constexpr int64_t kBucketBytes = int64_t{25} << 20;

template <typename T>
std::vector<T> chosen(const std::vector<T>& values, const RowSet& rows) {
  std::vector<T> result;
  for (const RowRange& range : rows)
    result.insert(result.end(), values.begin() + range.begin, values.begin() + range.end);
  return result;
}

}  // namespace

Team::Team(std::unique_ptr<Peers> job, const ParallelConfig& config)
    : job_(std::move(job)),
      order_(config.layout == "contiguous" ? ContextOrder::kContiguous : ContextOrder::kZigzag),
      mesh_(Mesh::connect(*job_, config.data, config.context)) {}

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
  return part;
}

BatchTensors Team::tensors(const Batch& batch, Device device) const {
  if (place().context == 1) return BatchTensors::from(batch, device);
  const Batch part = rows(batch);
  const MemoryScope scope(MemoryOwner::kData);
  const auto count = static_cast<int64_t>(part.tokens.size());
  return {Tensor::from(part.tokens, {count}).to(device),
          Tensor::from(part.targets, {count}).to(device),
          SequenceLayout::shared(
              std::make_shared<const ContextLayout>(batch.segment_offsets, order_, context()), device)};
}

void Team::sum_gradients(const ParameterStore& store) const {
  if (alone()) return;
  // A parameter may have met no row in this process, but some in another.
  const auto& parameters = store.all();
  Tensor met = Tensor::zeros({static_cast<int64_t>(parameters.size())}, DType::kI32);
  for (size_t i = 0; i < parameters.size(); ++i)
    met.data<int32_t>()[i] = parameters[i]->variable.grad().defined() ? 1 : 0;
  world().all_reduce(met, ReduceOp::kMax, "parameters with gradients");
  std::vector<Tensor> bucket;
  int64_t elements = 0;
  const auto flush = [&] {
    if (bucket.empty()) return;
    const MemoryScope scope(MemoryOwner::kGradients);
    Tensor flat = Tensor::empty({elements}, bucket[0].dtype(), bucket[0].device());
    const auto each = [&](const auto& function) {
      int64_t at = 0;
      for (Tensor& gradient : bucket) {
        Tensor place = flat.slice(0, at, at + gradient.numel()).reshape(gradient.shape());
        function(gradient, place);
        at += gradient.numel();
      }
    };
    each([&](Tensor& gradient, Tensor& place) {
      LH_DISPATCH(flat.device(), "gradients", copy(gradient, place));
    });
    world().all_reduce(flat, ReduceOp::kSum, "gradients");
    each([&](Tensor& gradient, Tensor& place) {
      LH_DISPATCH(flat.device(), "gradients", copy(place, gradient));
    });
    bucket.clear();
    elements = 0;
  };
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (met.data<int32_t>()[i] == 0) continue;
    Tensor gradient = parameters[i]->variable.grad_or_zeros();
    elements += gradient.numel();
    bucket.push_back(std::move(gradient));
    if (elements * static_cast<int64_t>(dtype_size(bucket[0].dtype())) >= kBucketBytes) flush();
  }
  flush();
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

void Team::spread(Tensor& t, const std::string& label) const {
  if (!alone()) world().broadcast(t, 0, label);
}

int64_t Team::spread(int64_t value, const std::string& label) const {
  Tensor t = Tensor::from(std::vector<int64_t>{value}, {1});
  spread(t, label);
  return t.data<int64_t>()[0];
}

void Team::must_agree(const std::string& text, const std::string& what) const {
  if (alone()) return;
  const std::string digest = digest_of(text);
  Tensor leaders = Tensor::from(std::vector<uint8_t>(digest.begin(), digest.end()),
                                {static_cast<int64_t>(digest.size())});
  world().broadcast(leaders, 0, what);
  const bool same = std::equal(digest.begin(), digest.end(), leaders.span<uint8_t>().begin(),
                               [](char a, uint8_t b) { return static_cast<uint8_t>(a) == b; });
  const bool differs = any(!same, what + " agree");
  if (!same)
    fail<ConfigError>("the {} of rank {} is not that of rank 0: all processes need the same", what,
                      rank());
  if (differs)
    fail<ConfigError>("another process has another {} than rank 0: all processes need the same", what);
}

void Team::set_step(int64_t step) const {
  world().set_step(step);
  context().set_step(step);
}

int local_rank_of_environment() {
  return static_cast<int>(process_context(current_environment()).local_rank);
}

std::unique_ptr<Team> team_of_environment(const ParallelConfig& config, Device device) {
  const ProcessContext context = process_context(current_environment());
  PeerPlace place;
  place.rank = static_cast<int>(context.rank);
  place.size = static_cast<int>(context.world_size);
  place.master = {context.master_addr, static_cast<uint16_t>(context.master_port)};
  place.device = device;
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
  return std::make_unique<Team>(std::make_unique<Peers>(place, gloo), config);
}

}  // namespace lh
