// The seam for every attention system: a token mixer owns its projections, the mixing, its decode
// cache and its cost report. Residual, norm and feed-forward belong to the block (models/).
// Letters: N rows (tokens of all packed documents), D hidden size, H query heads, G kv heads,
// d head dimension.
#pragma once

#include <memory>
#include <string>

#include "config/model_config.h"
#include "mixers/sequence_layout.h"
#include "nn/parameter.h"
#include "nn/rope_table.h"

namespace lh {

/// How a mixer's state combines across sequence shards, which decides its context parallelism.
enum class ContextParallelClass {
  kLogSumExp,  // partial softmax results merge by (max, sum, output)
  kHalo,       // needs rows of the left neighbour only
  kAffine,     // recurrent state with an affine transition: exclusive scan
  kSequential,  // nonlinear state: ranks in order, or all-to-all over heads
};

/// Keys of all kv heads that caches hold, of those they have seen; what is allocated, and what a cache of
/// all of them would take.
struct KeptKeys {
  int64_t kept = 0, all = 0, bytes = 0, dense_bytes = 0;
};

/// What generation keeps of the past for one layer and one sequence.
class MixerCache {
 public:
  virtual ~MixerCache() = default;
  virtual int64_t bytes() const = 0;
  /// Of a cache that chooses its keys; none of none for the others.
  virtual KeptKeys kept_keys() const { return {}; }
};

/// Arithmetic of the mixing alone (projections excluded), forward, over packed segments.
struct MixerFlops {
  double useful = 0;  // multiply-adds counted twice, over the mask's area
};

class TokenMixer {
 public:
  virtual ~TokenMixer() = default;

  /// x [N, D] (normed) -> [N, D].
  virtual Variable forward(const Variable& x, const SequenceLayout& layout) const = 0;

  /// An empty cache for one sequence of at most max_tokens.
  virtual std::unique_ptr<MixerCache> make_cache(int64_t max_tokens) const = 0;

  /// The next rows of one sequence, after those the cache has seen: prefill and one-token steps
  /// alike. Equals forward() of the whole sequence at those rows. No history is recorded.
  virtual Variable forward_cached(const Variable& x, const SequenceLayout& rows,
                                  MixerCache& cache) const = 0;

  /// True when forward() and its backward launch the same work with the same arguments whatever the
  /// documents of a reusable layout are, so that a step can be recorded and launched again
  /// (CUDA graphs). False: the steps of a model with this mixer are launched kernel by kernel.
  virtual bool is_recordable() const { return false; }

  /// Opens in `report` the numbers that forward() adds to when the layout has one, and adds those of the weights.
  virtual void describe(MixerReport&) const {}

  virtual MixerFlops flops(const SequenceLayout& layout) const = 0;
  virtual ContextParallelClass context_parallel_class() const = 0;
};

/// What a mixer is built from. `prefix` names its parameters ("model.layers.3.self_attn").
struct MixerContext {
  const ModelConfig& model;
  const MixerConfig& config;
  std::string prefix;
  ParameterStore& store;
  std::shared_ptr<const RopeTable> rope;
};

/// Looks config.kind up in the table of mixers; ConfigError lists the known kinds.
std::unique_ptr<TokenMixer> make_mixer(const MixerContext& context);

}  // namespace lh
