// Checkpoints on disk: one folder per step, complete or absent.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

namespace lh {

/// Writes `folder`/step_00001234 through a temporary folder: `write` fills it, then a manifest of
/// digests is added, everything is synced, and the folder renamed. What a killed save left behind
/// is removed first. Returns the final path. On an exception nothing of the new one remains.
std::filesystem::path write_checkpoint(
    const std::filesystem::path& folder, int64_t step,
    const std::function<void(const std::filesystem::path&)>& write);

/// Marks a checkpoint as the best so far (a file naming it), replacing the earlier mark.
void mark_best(const std::filesystem::path& checkpoint);

/// Removes all but the newest `keep_last` and, when `keep_best`, the marked one.
void prune_checkpoints(const std::filesystem::path& folder, int64_t keep_last, bool keep_best);

/// IoError when a file is missing or its digest is not the manifest's.
void verify_checkpoint(const std::filesystem::path& checkpoint);

/// The newest checkpoint that verifies; damaged ones are skipped with a warning that says why.
std::optional<std::filesystem::path> latest_checkpoint(const std::filesystem::path& folder);

/// `path` itself when it is a checkpoint, else the newest one in it or in its checkpoints/ folder.
/// IoError when there is none.
std::filesystem::path find_checkpoint(const std::filesystem::path& path);

bool has_checkpoints(const std::filesystem::path& folder);

}  // namespace lh
