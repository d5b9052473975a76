// The first 512 bytes of a training state: its sizes and the digest of its structure, as text.
#pragma once

#include <cstdint>
#include <string>

#include "storage/raw_file.h"

namespace lh {

inline constexpr int64_t kStateSealBytes = 512;  // the smallest user block HDF5 allows

/// Seals a finished file whose structure ends at `structure_end`. The tensors behind it have
/// digests of their own.
void write_state_seal(RawFile& file, int64_t structure_end);

/// IoError naming `name` when the file is foreign, of a newer format, truncated or damaged.
void check_state_seal(const RawFile& file, const std::string& name);

}  // namespace lh
