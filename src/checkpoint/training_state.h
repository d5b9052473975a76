// The HDF5 file a run resumes from: masters, optimizer state, counters.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "optim/optimizer.h"

namespace lh {

struct TrainingState {
  std::map<std::string, std::string> meta;  // counters and digests, as text
  std::vector<NamedTensor> tensors;
};

/// Writes /tensors/<name> datasets with a digest attribute each, and the meta map as attributes of
/// /meta. The caller makes the write atomic (checkpoint_folder.h). IoError on a full disk.
void write_training_state(const std::filesystem::path& path, const TrainingState& state);

/// Reads and checks every tensor's digest. IoError names the file and what is wrong with it.
TrainingState read_training_state(const std::filesystem::path& path);

/// Copies state tensors into `targets` by name, after checking that every target has a tensor of
/// its shape and dtype; all mismatches are reported in one IoError and nothing is copied then.
void restore_tensors(const TrainingState& state, const std::vector<NamedTensor>& targets,
                     const std::string& file);

}  // namespace lh
