// Causal softmax attention within documents, wherever their rows are: in this process, or spread over a
// context-parallel group.
#pragma once

#include <string>

#include "mixers/sequence_layout.h"
#include "ops/attention.h"

namespace lh {

/// How processes that share a sequence bring queries and keys together.
enum class ContextScheme : uint8_t {
  kAuto,    // the one that moves less
  kGather,  // keys and values to the queries that see them
  kHeads,   // all rows of some heads to each process (Ulysses)
};

/// "auto", "gather" or "heads": MixerConfig::context.
ContextScheme context_scheme(const std::string& name);

/// q [N, H, d], k, v [N, G, d] of this process's rows -> [N, H, d]. `label` names the exchanges.
Variable attend(const Variable& q, const Variable& k, const Variable& v,
                const SequenceLayout& layout, const AttentionMask& mask, double scale,
                ContextScheme scheme, const std::string& label);

}  // namespace lh
