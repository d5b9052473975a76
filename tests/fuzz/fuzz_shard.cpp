// libFuzzer target: token shards. The first byte chooses between
//  - the rest as a file: it opens and reads, or throws lh::Error;
//  - the rest as the content of a well-formed HDF5 file with a valid seal (sizes, attributes,
//    texts, arrays), so that the checks behind the digests are reached; what opens is also
//    batched and inspected, and the batches must have the form that they promise.
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "base/error.h"
#include "data/batcher.h"
#include "data/inspect.h"
#include "data/shard_hdf5.h"
#include "data/shard_seal.h"
#include "storage/raw_file.h"

namespace {

using namespace lh;

const std::filesystem::path& fuzz_path() {
  static const std::filesystem::path path = [] {
    const bool memory = std::filesystem::is_directory("/dev/shm");
    return (memory ? std::filesystem::path("/dev/shm") : std::filesystem::temp_directory_path()) /
           ("longhand-fuzz-shard-" + std::to_string(::getpid()) + ".h5");
  }();
  return path;
}

void require(bool ok) {
  if (!ok) __builtin_trap();
}

void check_form(const Batch& batch, int64_t vocab_size) {
  require(batch.tokens.size() == batch.targets.size());
  require(batch.tokens.size() == batch.positions.size());
  require(batch.segment_offsets.front() == 0);
  require(batch.segment_offsets.back() == static_cast<int64_t>(batch.tokens.size()));
  require(std::is_sorted(batch.segment_offsets.begin(), batch.segment_offsets.end()));
  for (const auto& ids : {batch.tokens, batch.targets})
    for (const int32_t id : ids) require(id >= 0 && id < vocab_size);
}

void read_everything(const std::filesystem::path& path) {
  const auto shard = TokenShard::open(path);
  const EvaluationBatches evaluation({shard}, 7);
  int64_t targets = 0;
  for (int64_t s = 0; s < evaluation.sequences(); ++s) {
    const Batch batch = evaluation.make_batch(s, 1);
    check_form(batch, shard->info().vocab_size);
    targets += batch.valid_targets;
  }
  require(targets == shard->info().tokens);
  require(evaluation.text_bytes() == shard->info().text_bytes);
  const TrainingBatches training({{{shard}, 1}}, {.seq_tokens = 5, .sequences_per_step = 2});
  for (int64_t step = 0; step < 3; ++step)
    check_form(training.make_batch(step, 0, 2), shard->info().vocab_size);
  format_report(*shard, inspect_shard(*shard, {.verify = true}));
}

/// Takes values off the front of the input; zeros when it is used up.
class Source {
 public:
  Source(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  void take(void* out, size_t bytes) {
    const size_t count = std::min(bytes, size_);
    std::memset(out, 0, bytes);
    if (count > 0) std::memcpy(out, data_, count);
    data_ += count;
    size_ -= count;
  }
  template <typename T>
  T value() {
    T result;
    take(&result, sizeof result);
    return result;
  }
  std::string text() {
    std::string result(value<uint8_t>(), '\0');
    take(result.data(), result.size());
    return result;
  }

 private:
  const uint8_t* data_;
  size_t size_;
};

void write_sealed(const std::filesystem::path& path, Source& source) {
  ShardInfo info;
  info.documents = source.value<uint8_t>() % 20;
  info.tokens = source.value<uint16_t>() % 2000;
  info.token_width = source.value<uint8_t>() % 2 == 0 ? 2 : 4;
  info.vocab_size = source.value<int64_t>();
  info.end_of_text = source.value<int32_t>();
  info.text_bytes = source.value<int64_t>();
  info.tokenizer_digest = source.text();
  info.content_digest = source.text();
  info.sources = {{source.text(), source.value<int64_t>(), source.text()}};
  const ShardLayout layout = create_shard_structure(path, info, source.text());
  RawFile file = RawFile::open_write(path);
  const auto fill = [&](int64_t begin, int64_t bytes) {
    std::string content(static_cast<size_t>(bytes), '\0');
    source.take(content.data(), content.size());
    file.write_at(begin, content.data(), bytes);
  };
  // Small differences, most of the time, so that valid offsets are likely to be found.
  int64_t offset = 0;
  for (int64_t d = 0; d <= info.documents; ++d) {
    file.write_at(layout.offsets_begin + 8 * d, &offset, 8);
    const int16_t delta = source.value<int16_t>();
    offset += delta == 0x7FFF ? source.value<int64_t>() >> 1 : delta % 128;
    if (d + 1 == info.documents && delta >= 0) offset = info.tokens;
  }
  fill(layout.bytes_begin, 8 * info.documents);
  fill(layout.tokens_begin, info.token_width * info.tokens);
  ShardSeal seal;
  seal.format = source.value<uint8_t>() == 1 ? 2 : kShardFormat;
  seal.tokens_begin = layout.tokens_begin;
  seal.tokens_bytes = info.token_width * info.tokens;
  write_seal(path, seal);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::filesystem::path& path = fuzz_path();
  try {
    if (data[0] % 2 == 0) {
      std::ofstream(path, std::ios::binary)
          .write(reinterpret_cast<const char*>(data + 1), static_cast<std::streamsize>(size - 1));
    } else {
      Source source(data + 1, size - 1);
      write_sealed(path, source);
    }
    read_everything(path);
  } catch (const Error&) {
  }
  std::error_code ignored;
  std::filesystem::remove(path, ignored);
  return 0;
}
