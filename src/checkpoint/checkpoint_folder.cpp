#include "checkpoint/checkpoint_folder.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "storage/raw_file.h"

namespace lh {
namespace fs = std::filesystem;
namespace {

constexpr const char* kManifest = "manifest.json";
constexpr const char* kBest = "best";
constexpr const char* kTemporary = ".saving-";

/// Complete or damaged checkpoints, newest first: only a rename makes such a name.
std::vector<fs::path> step_folders(const fs::path& folder) {
  std::vector<fs::path> found;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    if (it->path().filename().string().starts_with("step_")) found.push_back(it->path());
  std::sort(found.rbegin(), found.rend());
  return found;
}

void remove_leftovers(const fs::path& folder) {
  std::vector<fs::path> leftovers;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().filename().string().starts_with(kTemporary)) leftovers.push_back(entry.path());
  for (const fs::path& path : leftovers) fs::remove_all(path);
}

}  // namespace

fs::path write_checkpoint(const fs::path& folder, int64_t step,
                          const std::function<void(const fs::path&)>& write) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error)
    fail<IoError>("cannot create the checkpoint folder {}: {}", folder.string(), error.message());
  remove_leftovers(folder);
  const std::string name = fmt::format("step_{:08}", step);
  const fs::path temporary = folder / (kTemporary + name), final_path = folder / name;
  try {
    if (!fs::create_directory(temporary, error))
      fail<IoError>("cannot write into {}: {}", folder.string(), error.message());
    write(temporary);
    nlohmann::ordered_json files;
    for (const auto& entry : fs::directory_iterator(temporary)) {
      sync_path(entry.path());
      files[entry.path().filename().string()] = digest_of_file(entry.path());
    }
    write_file_atomically(temporary / kManifest,
                          nlohmann::ordered_json{{"step", step}, {"files", files}}.dump(2) + "\n");
    sync_path(temporary);
    fs::remove_all(final_path);  // the same step again, after a resume
    fs::rename(temporary, final_path);
  } catch (...) {
    fs::remove_all(temporary, error);
    throw;
  }
  sync_path(folder);
  return final_path;
}

void mark_best(const fs::path& checkpoint) {
  write_file_atomically(checkpoint.parent_path() / kBest, checkpoint.filename().string() + "\n");
}

void prune_checkpoints(const fs::path& folder, int64_t keep_last, bool keep_best) {
  std::string best;
  std::error_code error;
  if (keep_best && fs::exists(folder / kBest, error)) {
    best = read_file(folder / kBest);
    best.erase(best.find_last_not_of('\n') + 1);
  }
  int64_t kept = 0;
  for (const fs::path& checkpoint : step_folders(folder))
    if (++kept > keep_last && checkpoint.filename() != best) fs::remove_all(checkpoint, error);
}

void verify_checkpoint(const fs::path& checkpoint) {
  const std::string text = read_file(checkpoint / kManifest);
  const auto manifest = nlohmann::json::parse(text, nullptr, false);
  if (!manifest.is_object() || !manifest.contains("files") || !manifest["files"].is_object())
    fail<IoError>("{}: the manifest is damaged", (checkpoint / kManifest).string());
  for (const auto& [name, digest] : manifest["files"].items()) {
    const fs::path file = checkpoint / fs::path(name).filename();
    if (!digest.is_string() || digest_of_file(file) != digest.get<std::string>())
      fail<IoError>("{}: its content was changed or cut since it was saved (digest differs)",
                    file.string());
  }
}

std::optional<fs::path> latest_checkpoint(const fs::path& folder) {
  for (const fs::path& checkpoint : step_folders(folder)) {
    try {
      verify_checkpoint(checkpoint);
      return checkpoint;
    } catch (const IoError& error) {
      log_warn("[checkpoint] skipping {}: {}", checkpoint.string(), error.what());
    }
  }
  return std::nullopt;
}

fs::path find_checkpoint(const fs::path& path) {
  std::error_code error;
  if (fs::exists(path / kManifest, error)) {
    verify_checkpoint(path);
    return path;
  }
  for (const fs::path& folder : {path, path / "checkpoints"})
    if (const auto latest = latest_checkpoint(folder)) return *latest;
  fail<IoError>("{}: expected a checkpoint folder, or a run folder with a usable checkpoint",
                path.string());
}

bool has_checkpoints(const fs::path& folder) {
  return !step_folders(folder).empty();
}

}  // namespace lh
