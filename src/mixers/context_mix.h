// Causal mixing within documents, wherever their rows are: in this process, or spread over a context-parallel
// group, whose processes bring queries and keys together.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "mixers/sequence_layout.h"

namespace lh {

/// How processes that share a sequence bring queries and keys together.
enum class ContextScheme : uint8_t {
  kAuto,    // the one that moves less
  kGather,  // keys and values to the queries that see them
  kHeads,   // all rows of some heads to each process (Ulysses): any mixer whose heads do not meet
};

/// "auto", "gather" or "heads": MixerConfig::context.
ContextScheme context_scheme(const std::string& name);

/// Rows [N, heads, d] of one process; sizes of heads and d are each tensor's own. Undefined ones stay so.
struct MixInputs {
  std::vector<Variable> queries;  // what a row asks with: q, probes
  std::vector<Variable> keys;     // what it is asked by: k, v, then any others

  const Variable& k() const { return keys[0]; }
  const Variable& v() const { return keys[1]; }
};

/// -> [N, query heads, d of v], N the queries' rows.
using Mix = std::function<Variable(const MixInputs& inputs, std::shared_ptr<const AttentionPlan> plan)>;

/// `mix` of this process's rows. `label` names the exchanges. ShapeError when the scheme is kHeads and the group does not
/// divide the heads of an input.
Variable mix_in_context(MixInputs inputs, const SequenceLayout& layout, const AttentionMask& mask,
                        double scale, ContextScheme scheme, const std::string& label, const Mix& mix);

/// The same with softmax attention: q [N, H, d], k, v [N, G, d] -> [N, H, d].
Variable attend(const Variable& q, const Variable& k, const Variable& v,
                const SequenceLayout& layout, const AttentionMask& mask, double scale,
                ContextScheme scheme, const std::string& label);

}  // namespace lh
