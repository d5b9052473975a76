// Files that are either complete or absent: write to a temporary name, sync, rename.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

namespace lh {

/// Reads a whole file. IoError names the path and the system's reason.
std::string read_file(const std::filesystem::path& path);

/// Writes `write(temporary_path)`, then fsyncs it, renames it to `path` and fsyncs the folder.
/// On any exception the temporary is removed and `path` keeps its earlier content.
void write_atomically(const std::filesystem::path& path,
                      const std::function<void(const std::filesystem::path&)>& write);

/// The same for a ready byte string.
void write_file_atomically(const std::filesystem::path& path, std::string_view content);

/// fsync of a file or folder; IoError on failure (a full disk may show only here).
void sync_path(const std::filesystem::path& path);

}  // namespace lh
