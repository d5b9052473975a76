#include "data/batcher.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "data/task_sequences.h"

namespace lh {

namespace {

/// Adds the slice to the batch as a segment of its own.
void append_segment(const PieceTable& pieces, const Slice& slice, Batch& batch) {
  if (batch.segment_offsets.empty()) batch.segment_offsets.push_back(0);
  const size_t begin = batch.tokens.size(), tokens = static_cast<size_t>(slice.tokens);
  batch.tokens.resize(begin + tokens);
  batch.targets.resize(begin + tokens);
  batch.positions.resize(begin + tokens);
  pieces.read(slice, std::span(batch.tokens).subspan(begin),
              std::span(batch.targets).subspan(begin));
  std::iota(batch.positions.begin() + static_cast<int64_t>(begin), batch.positions.end(), 0);
  batch.segment_offsets.push_back(static_cast<int64_t>(begin + tokens));
  batch.valid_targets += slice.tokens;
}

std::vector<double> weights_of(const std::vector<TrainingBatches::Source>& sources) {
  std::vector<double> weights;
  for (const auto& source : sources) weights.push_back(source.weight);
  return weights;
}

}  // namespace

/// The sequences of one source, each of seq_tokens tokens and of as many targets as any other.
class TrainingBatches::Stream {
 public:
  virtual ~Stream() = default;
  virtual void append(int64_t sequence, Batch& batch) const = 0;
  virtual int64_t targets_per_sequence() const = 0;
  virtual int64_t tokens_per_sequence() const = 0;  // without filling
  virtual std::string content() const = 0;
  virtual int64_t tokens() const = 0;  // 0: endless
};

class TrainingBatches::ShardStream final : public Stream {
 public:
  ShardStream(std::vector<std::shared_ptr<const TokenShard>> shards, const Sampler::Options& options)
      : pieces_(std::move(shards), options.seq_tokens),
        sampler_(pieces_, options),
        seq_tokens_(options.seq_tokens) {}

  void append(int64_t sequence, Batch& batch) const override {
    for (const Slice& slice : sampler_.sequence(sequence)) append_segment(pieces_, slice, batch);
    batch.target_bytes += static_cast<double>(seq_tokens_) *
                          static_cast<double>(pieces_.text_bytes()) /
                          static_cast<double>(pieces_.tokens());
  }
  int64_t targets_per_sequence() const override { return seq_tokens_; }
  int64_t tokens_per_sequence() const override { return seq_tokens_; }
  std::string content() const override {
    std::string digests;
    for (const auto& shard : pieces_.shards())
      digests += fmt::format(" {}", shard->info().content_digest);
    return digests;
  }
  int64_t tokens() const override { return pieces_.tokens(); }

 private:
  PieceTable pieces_;
  Sampler sampler_;
  int64_t seq_tokens_;
};

class TrainingBatches::TaskStream final : public Stream {
 public:
  TaskStream(Task task, const TaskSequences::Options& options)
      : sequences_(std::move(task), options) {}

  void append(int64_t sequence, Batch& batch) const override {
    const int64_t count = sequences_.examples_per_sequence();
    sequences_.append_examples(sequence * count, count, batch);
    sequences_.append_filling(batch);
  }
  int64_t targets_per_sequence() const override {
    return sequences_.examples_per_sequence() * sequences_.task().shape().answers;
  }
  int64_t tokens_per_sequence() const override {
    return sequences_.examples_per_sequence() * sequences_.task().shape().tokens;
  }
  std::string content() const override { return fmt::format(" {}", sequences_.task().identity()); }
  int64_t tokens() const override { return 0; }

 private:
  TaskSequences sequences_;
};

TrainingBatches::TrainingBatches(std::vector<Source> sources, const Options& options)
    : options_(options), mixture_(weights_of(sources)) {
  if (options.sequences_per_step < 1)
    fail<ConfigError>("a step needs at least one sequence, got {}", options.sequences_per_step);
  std::shared_ptr<const TokenShard> first;
  for (size_t i = 0; i < sources.size(); ++i) {
    Source& source = sources[i];
    if (source.task && !source.shards.empty())
      fail<ConfigError>("source {} of the training data is both shards and a task", i);
    if (source.task) {
      streams_.push_back(std::make_unique<TaskStream>(
          std::move(*source.task),
          TaskSequences::Options{options.seq_tokens, options.seed,
                                 TaskSequences::training_stream(static_cast<int64_t>(i)),
                                 options.end_of_text}));
    } else {
      streams_.push_back(std::make_unique<ShardStream>(
          source.shards, Sampler::Options{options.seq_tokens, options.seed,
                                          static_cast<int64_t>(i), options.shuffle}));
      if (first == nullptr) first = source.shards[0];
      const TokenShard& shard = *source.shards[0];
      if (shard.info().tokenizer_digest != first->info().tokenizer_digest)
        fail<ConfigError>("{} and {} were made with different tokenizers", first->path().string(),
                          shard.path().string());
    }
    content_ += fmt::format("{}weight {}:{}", i > 0 ? "; " : "", source.weight,
                            streams_.back()->content());
  }
}

TrainingBatches::~TrainingBatches() = default;

Batch TrainingBatches::make_batch(int64_t step, int64_t first_sequence, int64_t sequences) const {
  LH_CHECK(step >= 0 && first_sequence >= 0 && sequences >= 1 &&
               first_sequence + sequences <= options_.sequences_per_step,
           "[data] step {}: sequences {} + {} of {}", step, first_sequence, sequences,
           options_.sequences_per_step);
  Batch batch;
  batch.step = step;
  batch.first_row = first_sequence * options_.seq_tokens;
  for (int64_t i = 0; i < sequences; ++i) {
    const Mixture::Draw draw = mixture_(step * options_.sequences_per_step + first_sequence + i);
    streams_[static_cast<size_t>(draw.source)]->append(draw.index, batch);
  }
  return batch;
}

int64_t TrainingBatches::in_step(int64_t step, int64_t (Stream::*per_sequence)() const) const {
  const int64_t begin = step * options_.sequences_per_step;
  const int64_t end = begin + options_.sequences_per_step;
  int64_t total = 0;
  for (int64_t source = 0; source < mixture_.sources(); ++source)
    total += (mixture_.count(source, end) - mixture_.count(source, begin)) *
             (*streams_[static_cast<size_t>(source)].*per_sequence)();
  return total;
}

int64_t TrainingBatches::valid_targets(int64_t step) const {
  return in_step(step, &Stream::targets_per_sequence);
}

int64_t TrainingBatches::document_tokens(int64_t step) const {
  return in_step(step, &Stream::tokens_per_sequence);
}

double TrainingBatches::epochs(int64_t source, int64_t step) const {
  if (tokens(source) == 0) return 0;
  const int64_t sequences = mixture_.count(source, step * options_.sequences_per_step);
  return static_cast<double>(sequences * options_.seq_tokens) / static_cast<double>(tokens(source));
}

int64_t TrainingBatches::tokens(int64_t source) const {
  return streams_[static_cast<size_t>(source)]->tokens();
}

EvaluationBatches::EvaluationBatches(std::vector<std::shared_ptr<const TokenShard>> shards,
                                     int64_t seq_tokens, int64_t max_tokens)
    : pieces_(std::move(shards), seq_tokens) {
  int64_t piece = 0, filled = seq_tokens;
  for (; piece < pieces_.pieces() && (max_tokens <= 0 || valid_targets_ < max_tokens); ++piece) {
    const int64_t tokens = pieces_.piece_tokens(piece);
    if (filled + tokens > seq_tokens) {
      first_pieces_.push_back(piece);
      filled = 0;
    }
    filled += tokens;
    valid_targets_ += tokens;
  }
  first_pieces_.push_back(piece);
  share_bytes(piece);
  whole_documents_ = piece == pieces_.pieces() || pieces_.piece(piece).starts_document;
}

/// Spreads each document's bytes over its pieces by their tokens, so that they add up exactly.
void EvaluationBatches::share_bytes(int64_t pieces) {
  int64_t piece = 0;
  for (const auto& shard : pieces_.shards()) {
    if (piece == pieces) break;
    const std::vector<int64_t> offsets = shard->document_offsets();
    const std::vector<int64_t> bytes = shard->document_bytes();
    for (size_t d = 0; d < bytes.size() && piece < pieces; ++d) {
      const int64_t tokens = offsets[d + 1] - offsets[d];
      const auto bytes_before = [&](int64_t count) {
        return static_cast<int64_t>(static_cast<__int128>(bytes[d]) * count / tokens);
      };
      for (int64_t done = 0; done < tokens && piece < pieces; ++piece) {
        const int64_t next = done + pieces_.piece_tokens(piece);
        piece_bytes_.push_back(bytes_before(next) - bytes_before(done));
        text_bytes_ += piece_bytes_.back();
        done = next;
      }
    }
  }
}

Batch EvaluationBatches::make_batch(int64_t first_sequence, int64_t count) const {
  LH_CHECK(first_sequence >= 0 && count >= 1 && first_sequence + count <= sequences(),
           "[data] evaluation sequences {} + {} of {}", first_sequence, count, sequences());
  Batch batch;
  for (int64_t piece = first_pieces_[first_sequence]; piece < first_pieces_[first_sequence + count];
       ++piece) {
    append_segment(pieces_, pieces_.piece(piece), batch);
    batch.target_bytes += static_cast<double>(piece_bytes_[piece]);
  }
  return batch;
}

}  // namespace lh
