// `longhand data prepare`: text, JSONL and gzip files to token shards.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "data/document_splitter.h"
#include "data/token_shard.h"

namespace lh {

enum class InputFormat {
  kAuto,  // by name: .jsonl and .ndjson (also with .gz, .dz) are JSONL, all else is text
  kText,
  kJsonl,
};

struct PrepareOptions {
  std::vector<std::string> inputs;  // paths, globs, "-" for standard input
  std::filesystem::path train_path;
  std::filesystem::path valid_path;  // needed by the two splits below

  InputFormat format = InputFormat::kAuto;
  std::string jsonl_field = "text";
  bool skip_bad_lines = false;  // count bad JSONL lines; else the first one is an error

  DocumentSplit split = DocumentSplit::kFile;  // of text; JSONL has one document per line
  int64_t blank_lines = 1;                     // for kBlankLines: at least so many in a row
  std::string separator;                       // for kSeparator

  double valid_fraction = 0;     // of documents, chosen by a hash of their text and the seed
  int64_t valid_last_bytes = 0;  // or the end of the input (of JSONL lines, for JSONL)
  uint64_t seed = 0;

  int threads = 0;                  // 0: all of the machine's
  int64_t segment_bytes = 1 << 18;  // long documents are tokenized in parts of about this size
};

struct PrepareProgress {
  int64_t bytes_done = 0;   // of the inputs on disk (compressed, for gzip)
  int64_t bytes_total = 0;  // 0: unknown
  int64_t documents = 0;
  int64_t tokens = 0;
  double seconds = 0;
  std::optional<double> seconds_left;
};

struct PrepareResult {
  ShardInfo train;
  std::optional<ShardInfo> valid;
  int64_t empty_documents = 0;  // dropped
  int64_t bad_lines = 0;        // skipped
  double seconds = 0;
};

/// Writes the shards; their bytes do not depend on the number of threads. Text is kept as it is,
/// ill-formed UTF-8 too. Calls `progress` from this thread, several times a second. Returns
/// nullopt, with nothing written, when `stop` rises. ConfigError for options that contradict each
/// other or inputs without text; IoError for files, with the line of a bad JSONL record.
std::optional<PrepareResult> prepare(
    const PrepareOptions& options, const Tokenizer& tokenizer,
    const std::function<void(const PrepareProgress&)>& progress = {},
    const std::atomic<bool>* stop = nullptr);

}  // namespace lh
