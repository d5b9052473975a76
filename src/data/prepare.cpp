#include "data/prepare.h"

#include <algorithm>
#include <array>
#include <thread>

#include "base/error.h"
#include "base/timer.h"
#include "data/document_encoder.h"
#include "data/find_files.h"
#include "data/tail_holder.h"
#include "data/text_input.h"
#include "data/token_shard_writer.h"

namespace lh {
namespace fs = std::filesystem;

namespace {

void check_options(const PrepareOptions& options) {
  if (options.inputs.empty()) fail<ConfigError>("no input given to data prepare");
  if (options.train_path.empty()) fail<ConfigError>("no output given to data prepare");
  if (!(options.valid_fraction >= 0 && options.valid_fraction < 1))
    fail<ConfigError>("valid_fraction must be in 0..1, got {}", options.valid_fraction);
  if (options.valid_last_bytes < 0)
    fail<ConfigError>("valid_last_bytes must not be negative, got {}", options.valid_last_bytes);
  if (options.valid_fraction > 0 && options.valid_last_bytes > 0)
    fail<ConfigError>("valid_fraction and valid_last_bytes exclude each other");
  const bool split = options.valid_fraction > 0 || options.valid_last_bytes > 0;
  if (split && options.valid_path.empty())
    fail<ConfigError>("a validation part was asked for, but no output for it was given");
  if (!split && !options.valid_path.empty())
    fail<ConfigError>("{} would be empty: give valid_fraction or valid_last_bytes",
                      options.valid_path.string());
  if (split && fs::weakly_canonical(options.valid_path) == fs::weakly_canonical(options.train_path))
    fail<ConfigError>("training and validation would both be written to {}",
                      options.train_path.string());
  if (options.threads < 0) fail<ConfigError>("{} threads", options.threads);
}

bool is_jsonl(const PrepareOptions& options, fs::path path) {
  if (options.format != InputFormat::kAuto) return options.format == InputFormat::kJsonl;
  if (path.extension() == ".gz" || path.extension() == ".dz") path.replace_extension();
  return path.extension() == ".jsonl" || path.extension() == ".ndjson";
}

void create_folder_of(const fs::path& path) {
  if (!path.has_parent_path()) return;
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  if (error)
    fail<IoError>("cannot create folder {}: {}", path.parent_path().string(), error.message());
}

/// One run of prepare: input -> splitter -> (tail) -> encoder -> writers.
class Preparation {
 public:
  Preparation(const PrepareOptions& options, const Tokenizer& tokenizer,
              const std::function<void(const PrepareProgress&)>& progress,
              const std::atomic<bool>* stop)
      : options_(options),
        tokenizer_(tokenizer),
        progress_(progress),
        stop_(stop),
        files_(find_files(options.inputs)) {
    counts_.bytes_total = disk_bytes(files_);
    for (const fs::path* path : {&options.train_path, &options.valid_path}) {
      if (path->empty()) continue;
      create_folder_of(*path);
      writers_[path == &options.valid_path] = std::make_unique<TokenShardWriter>(*path, tokenizer);
    }
    const int threads = options.threads > 0
                            ? options.threads
                            : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
    max_in_flight_ = 2 * threads + 2;
    encoder_ = std::make_unique<DocumentEncoder>(
        tokenizer, DocumentEncoder::Options{threads, options.jsonl_field, options.skip_bad_lines,
                                            options.valid_fraction, options.seed});
    if (options.valid_last_bytes > 0)
      tail_.emplace(options.valid_last_bytes,
                    [this](EncodeItem&& item) { enqueue(std::move(item)); });
  }

  std::optional<PrepareResult> run() {
    std::vector<SourceFile> sources;
    for (const fs::path& file : files_) {
      sources.push_back(read_file(file));
      if (stopped()) return std::nullopt;
    }
    if (tail_) tail_->finish();
    submit();
    while (encoder_->in_flight() > 0) {
      if (stopped()) return std::nullopt;
      take_oldest();
    }
    counts_.bytes_done = std::max(counts_.bytes_done, counts_.bytes_total);
    report(true);
    // Validation first: a training shard without its held-out part is the worse half.
    if (writers_[1]) result_.valid = writers_[1]->finish(sources);
    result_.train = writers_[0]->finish(sources);
    result_.seconds = timer_.seconds();
    return result_;
  }

 private:
  bool stopped() const { return stop_ != nullptr && stop_->load(); }

  SourceFile read_file(const fs::path& path) {
    const bool jsonl = is_jsonl(options_, path);
    const auto name =
        std::make_shared<const std::string>(path == "-" ? "standard input" : path.string());
    DocumentSplitter splitter({jsonl ? DocumentSplit::kLine : options_.split, options_.blank_lines,
                               options_.separator, options_.segment_bytes},
                              tokenizer_, [&](Segment&& segment) {
                                route({std::move(segment), Part::kTrain, jsonl, name});
                              });
    TextInput input(path);
    std::vector<char> buffer(1 << 18);
    const int64_t before = counts_.bytes_done;
    for (bool first = true;; first = false) {
      const size_t got = input.read(buffer);
      if (got == 0 || stopped()) break;
      std::string_view bytes(buffer.data(), got);
      if (first && jsonl && bytes.starts_with("\xEF\xBB\xBF")) bytes.remove_prefix(3);
      splitter.add(bytes);
      counts_.bytes_done = before + input.disk_position();
      report(false);
    }
    if (!stopped()) splitter.end_file();
    return input.source();
  }

  void route(EncodeItem&& item) {
    if (tail_) return tail_->add(std::move(item));
    if (item.jsonl) {
      item.part = Part::kByHash;
    } else {
      if (item.segment.first)
        part_ = part_by_hash(item.segment.text, options_.seed, options_.valid_fraction);
      item.part = part_;
    }
    enqueue(std::move(item));
  }

  void enqueue(EncodeItem&& item) {
    pending_bytes_ += static_cast<int64_t>(item.segment.text.size()) + 64;
    pending_.push_back(std::move(item));
    if (pending_bytes_ >= options_.segment_bytes) submit();
  }

  void submit() {
    if (pending_.empty()) return;
    while (encoder_->in_flight() >= max_in_flight_) take_oldest();
    encoder_->submit(std::move(pending_));
    pending_ = {};
    pending_bytes_ = 0;
  }

  void take_oldest() {
    const Encoded encoded = encoder_->take();
    for (size_t part = 0; part < encoded.outputs.size(); ++part) {
      std::span<const TokenId> tokens = encoded.outputs[part].tokens;
      for (const Encoded::Run& run : encoded.outputs[part].runs) {
        writers_[part]->append(tokens.first(static_cast<size_t>(run.tokens)));
        tokens = tokens.subspan(static_cast<size_t>(run.tokens));
        text_bytes_[part] += run.text_bytes;
        if (!run.ends_document) continue;
        writers_[part]->end_document(text_bytes_[part]);
        text_bytes_[part] = 0;
      }
    }
    result_.empty_documents += encoded.empty_documents;
    result_.bad_lines += encoded.bad_lines;
    report(false);
  }

  void report(bool always) {
    if (!progress_ || (!always && timer_.seconds() < next_report_)) return;
    next_report_ = timer_.seconds() + 0.1;
    counts_.documents = counts_.tokens = 0;
    for (const auto& writer : writers_) {
      if (!writer) continue;
      counts_.documents += writer->documents();
      counts_.tokens += writer->tokens();
    }
    counts_.seconds = timer_.seconds();
    counts_.seconds_left.reset();
    if (counts_.bytes_total > 0 && counts_.bytes_done > 0)
      counts_.seconds_left = counts_.seconds *
                             static_cast<double>(counts_.bytes_total - counts_.bytes_done) /
                             static_cast<double>(counts_.bytes_done);
    progress_(counts_);
  }

  const PrepareOptions& options_;
  const Tokenizer& tokenizer_;
  const std::function<void(const PrepareProgress&)>& progress_;
  const std::atomic<bool>* stop_;
  Timer timer_;
  double next_report_ = 0;
  std::vector<fs::path> files_;
  std::array<std::unique_ptr<TokenShardWriter>, 2> writers_;  // by Part; valid may be absent
  std::array<int64_t, 2> text_bytes_{};                       // of the documents under way
  std::unique_ptr<DocumentEncoder> encoder_;
  std::optional<TailHolder> tail_;
  int64_t max_in_flight_ = 0;
  Part part_ = Part::kTrain;
  std::vector<EncodeItem> pending_;
  int64_t pending_bytes_ = 0;
  PrepareProgress counts_;
  PrepareResult result_;
};

}  // namespace

std::optional<PrepareResult> prepare(const PrepareOptions& options, const Tokenizer& tokenizer,
                                     const std::function<void(const PrepareProgress&)>& progress,
                                     const std::atomic<bool>* stop) {
  check_options(options);
  return Preparation(options, tokenizer, progress, stop).run();
}

}  // namespace lh
