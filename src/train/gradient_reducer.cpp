#include "train/gradient_reducer.h"

#include <numeric>

#include "backend/elementwise.h"

namespace lh {
namespace {

/// Walks along a flat tensor, piece by piece.
class Cursor {
 public:
  explicit Cursor(const Tensor& flat) : flat_(flat) {}
  Tensor next(const Shape& shape) {
    const int64_t begin = at_;
    at_ += shape.numel();
    return flat_.slice(0, begin, at_).reshape(shape);
  }

 private:
  Tensor flat_;
  int64_t at_ = 0;
};

void copy_to(const Tensor& from, Tensor to) {
  LH_DISPATCH(from.device(), "gradients", copy(from, to));
}

}  // namespace

GradientReducer::GradientReducer(const Team& team, const ParameterStore& store,
                                 const Optimizer& optimizer, int64_t bucket_bytes)
    : team_(team),
      store_(store),
      shards_(optimizer.config(), store, team.world_size()),
      shared_(optimizer.is_shared()),
      owned_(static_cast<size_t>(team.world_size())),
      summed_(store.device()) {
  LH_CHECK(!shared_ || (optimizer.shards().owners() == team.world_size() &&
                        optimizer.owner() == team.rank()),
           "[gradients] the optimizer belongs to another team");
  // Backward meets the last parameters first.
  int64_t bytes = bucket_bytes;
  for (size_t i = store.all().size(); i-- > 0;) {
    if (!parameter(i).variable.requires_grad()) continue;  // frozen, on every process
    if (bytes >= bucket_bytes) {
      buckets_.emplace_back(store.device());
      bytes = 0;
    }
    buckets_.back().parameters.push_back(i);
    bytes += parameter(i).numel() * static_cast<int64_t>(dtype_size(parameter(i).master.dtype()));
    bucket_of_[parameter(i).variable.leaf_gradient()] = buckets_.size() - 1;
  }
  Communicator* processes = team.gradients();
  if (processes == nullptr) return;
  watch_.reaches = [this](const std::unordered_set<const LeafGradient*>& leaves) {
    for (Bucket& bucket : buckets_) {
      bucket.missing = 0;
      for (const size_t index : bucket.parameters)
        bucket.missing += leaves.contains(parameter(index).variable.leaf_gradient()) ? 1 : 0;
    }
    released_ = 0;
    thread_->start(buckets_.size());
    release();
  };
  watch_.is_final = [this](const LeafGradient* leaf) {
    const auto found = bucket_of_.find(leaf);
    if (found == bucket_of_.end()) return;
    --buckets_[found->second].missing;
    release();
  };
  thread_ = std::make_unique<OrderedThread>(
      [this, processes](size_t index) {
        Bucket& bucket = buckets_[index];
        on_side_stream(store_.device(), [&] {
          bucket.ready.wait();
          sum(bucket, *processes);
          summed_.set();
        });
      },
      [processes] { processes->abandon(); }, store_.device().is_meta());
}

void GradientReducer::release() {
  for (; released_ < buckets_.size() && buckets_[released_].missing == 0; ++released_)
    buckets_[released_].ready.set();
  thread_->allow(released_);
}

template <typename F>
void GradientReducer::each_part(const std::vector<size_t>& parameters, int owner,
                                F&& function) const {
  for (const size_t index : parameters) {
    const ShardPart part =
        shared_ ? shards_.part(index, owner) : ShardPart{0, parameter(index).numel()};
    if (part.count() > 0) function(index, part);
  }
}

std::vector<int64_t> GradientReducer::counts(const std::vector<size_t>& parameters) const {
  std::vector<int64_t> all(static_cast<size_t>(shared_ ? shards_.owners() : 1));
  for (size_t owner = 0; owner < all.size(); ++owner)
    each_part(parameters, static_cast<int>(owner),
              [&](size_t, const ShardPart& part) { all[owner] += part.count(); });
  return all;
}

std::vector<size_t> GradientReducer::with_gradients(const Bucket& bucket,
                                                    Communicator& processes) const {
  Tensor met = Tensor::zeros({static_cast<int64_t>(bucket.parameters.size())}, DType::kI32);
  const auto flags = met.span<int32_t>();
  for (size_t i = 0; i < flags.size(); ++i)
    flags[i] = parameter(bucket.parameters[i]).variable.grad().defined() ? 1 : 0;
  processes.all_reduce(met, ReduceOp::kMax, "parameters with gradients");
  std::vector<size_t> indices;
  for (size_t i = 0; i < flags.size(); ++i) {
    const size_t index = bucket.parameters[i];
    // Imagined peers (dist/imagined.h) are like this process, and do not send back what it has said.
    const bool met_somewhere = store_.device().is_meta()
                                   ? parameter(index).variable.grad().defined()
                                   : flags[i] != 0;
    if (met_somewhere) indices.push_back(index);
  }
  return indices;
}

void GradientReducer::sum(Bucket& bucket, Communicator& processes) {
  const MemoryScope scope(MemoryOwner::kGradients);
  bucket.met = with_gradients(bucket, processes);
  const std::vector<int64_t> sizes = counts(bucket.met);
  const int64_t elements = std::accumulate(sizes.begin(), sizes.end(), int64_t{0});
  if (elements == 0) return;
  const auto gradient = [&](size_t index, const ShardPart& part) {
    return part_of(parameter(index).variable.grad_or_zeros(), part);
  };
  const Tensor& like = parameter(bucket.met.front()).master;
  Tensor flat = Tensor::empty({elements}, like.dtype(), like.device());
  Cursor packing(flat);
  for (size_t owner = 0; owner < sizes.size(); ++owner)
    each_part(bucket.met, static_cast<int>(owner), [&](size_t index, const ShardPart& part) {
      const Tensor from = gradient(index, part);
      copy_to(from, packing.next(from.shape()));
    });
  Tensor sums = flat;
  if (shared_) {
    sums = Tensor::empty({sizes[static_cast<size_t>(team_.rank())]}, flat.dtype(), flat.device());
    processes.reduce_scatter_v(flat, sizes, sums, "gradients");
  } else {
    processes.all_reduce(flat, ReduceOp::kSum, "gradients");
  }
  Cursor unpacking(sums);
  each_part(bucket.met, team_.rank(), [&](size_t index, const ShardPart& part) {
    const Tensor to = gradient(index, part);
    copy_to(unpacking.next(to.shape()), to);
  });
}

void GradientReducer::sum() {
  if (thread_ != nullptr && thread_->is_started()) {
    for (; released_ < buckets_.size(); ++released_) buckets_[released_].ready.set();
    thread_->allow(buckets_.size());
    thread_->wait();
    summed_.wait();
  } else {
    for (Bucket& bucket : buckets_) sum(bucket, team_.world());
  }
}

void GradientReducer::squared_norm(Tensor& out) {
  const int owners = shards_.owners();
  const auto sum_of = [&](int owner) {
    TensorList& list = owned_[static_cast<size_t>(owner)];
    list.tensors.clear();
    for (size_t i = 0; i < store_.all().size(); ++i) {
      const Tensor gradient = parameter(i).variable.grad();
      const ShardPart part = shards_.part(i, owner);
      if (gradient.defined() && part.count() > 0)
        list.tensors.push_back(part_of(gradient, part));
    }
    Tensor sum = Tensor::zeros({1}, DType::kF64, out.device());
    LH_DISPATCH(out.device(), "grad_norm", sum_of_squares(list, sum));
    return sum.to(kCpuDevice);
  };
  Tensor sums = Tensor::empty({owners}, DType::kF64);  // on the host: devices do not add in f64
  if (shared_) {
    team_.world().all_gather(sum_of(team_.rank()), sums, "gradient norm");
  } else {
    for (int owner = 0; owner < owners; ++owner)
      sums.slice(0, owner, owner + 1).copy_bytes_from(sum_of(owner));
  }
  Tensor total = Tensor::empty({1}, DType::kF64);
  LH_DISPATCH(kCpuDevice, "grad_norm", sum(sums, total, false));
  out.copy_bytes_from(total);
}

void GradientReducer::share_parameters() {
  const MemoryScope scope(MemoryOwner::kGradients);
  for (const Bucket& bucket : buckets_) {
    const std::vector<int64_t> sizes = counts(bucket.met);
    const int64_t elements = std::accumulate(sizes.begin(), sizes.end(), int64_t{0});
    if (elements == 0) continue;
    const Tensor like = parameter(bucket.met.front()).variable.value();
    const Tensor own =
        Tensor::empty({sizes[static_cast<size_t>(team_.rank())]}, like.dtype(), like.device());
    Cursor packing(own);
    each_part(bucket.met, team_.rank(), [&](size_t index, const ShardPart& part) {
      const Tensor from = part_of(parameter(index).variable.value(), part);
      copy_to(from, packing.next(from.shape()));
    });
    Tensor all = Tensor::empty({elements}, like.dtype(), like.device());
    team_.world().all_gather_v(own, sizes, all, "parameters");
    Cursor unpacking(all);
    for (size_t owner = 0; owner < sizes.size(); ++owner)
      each_part(bucket.met, static_cast<int>(owner), [&](size_t index, const ShardPart& part) {
        const Tensor to = part_of(parameter(index).variable.value(), part);
        copy_to(unpacking.next(to.shape()), to);
      });
  }
}

}  // namespace lh
