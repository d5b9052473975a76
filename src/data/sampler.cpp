#include "data/sampler.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <thread>

#include "base/error.h"
#include "data/permutation.h"

namespace lh {

/// The order of one epoch, with the stream position of every kStride-th piece: a position is
/// found by bisection and a short walk, at an eighth of a byte per piece.
struct Sampler::Epoch {
  static constexpr int64_t kStride = 64;

  Epoch(const PieceTable& table, int64_t epoch_number, const Options& options)
      : pieces(table), number(epoch_number) {
    if (options.shuffle)
      order.emplace(static_cast<uint64_t>(pieces.pieces()), options.seed,
                    static_cast<uint64_t>(options.source) << 40 | static_cast<uint64_t>(number));
    marks.resize(static_cast<size_t>((pieces.pieces() + kStride - 1) / kStride));
    sum_strides();
    std::exclusive_scan(marks.begin(), marks.end(), marks.begin(), int64_t{0});
  }

  /// Sets each mark to the tokens of its stride. Half a microsecond per piece, so a corpus of
  /// millions is shared among threads.
  void sum_strides() {
    constexpr int64_t kStridesPerThread = 1 << 12;
    const int64_t strides = static_cast<int64_t>(marks.size());
    const int64_t available = std::max<int64_t>(1, std::thread::hardware_concurrency());
    const int64_t threads = std::clamp<int64_t>(strides / kStridesPerThread, 1, available);
    const auto sum = [&](int64_t first, int64_t last) {
      for (int64_t stride = first; stride < last; ++stride) {
        const int64_t end = std::min((stride + 1) * kStride, pieces.pieces());
        for (int64_t place = stride * kStride; place < end; ++place)
          marks[stride] += pieces.piece_tokens(piece_at(place));
      }
    };
    std::vector<std::jthread> others;  // join at the end of the scope
    for (int64_t t = 1; t < threads; ++t)
      others.emplace_back(sum, strides * t / threads, strides * (t + 1) / threads);
    sum(0, strides / threads);
  }

  int64_t piece_at(int64_t place) const {
    return order ? static_cast<int64_t>((*order)(static_cast<uint64_t>(place))) : place;
  }

  const PieceTable& pieces;
  int64_t number;
  std::optional<Permutation> order;
  std::vector<int64_t> marks;
};

Sampler::Sampler(const PieceTable& pieces, const Options& options)
    : pieces_(pieces), options_(options) {
  if (options.seq_tokens < 1)
    fail<ConfigError>("data.seq_tokens must be at least 1, got {}", options.seq_tokens);
}

Sampler::~Sampler() = default;

std::shared_ptr<const Sampler::Epoch> Sampler::epoch(int64_t number) const {
  std::lock_guard lock(mutex_);
  auto& slot = epochs_[number % 2];
  if (!slot || slot->number != number)
    slot = std::make_shared<const Epoch>(pieces_, number, options_);
  return slot;
}

std::vector<Slice> Sampler::sequence(int64_t k) const {
  LH_CHECK(k >= 0, "[data] sequence {}", k);
  const int64_t epoch_tokens = pieces_.tokens();
  int64_t number = k * options_.seq_tokens / epoch_tokens;
  int64_t position = k * options_.seq_tokens % epoch_tokens;
  std::shared_ptr<const Epoch> current = epoch(number);

  const auto mark = std::upper_bound(current->marks.begin(), current->marks.end(), position) - 1;
  int64_t place = (mark - current->marks.begin()) * Epoch::kStride;
  int64_t skip = position - *mark;  // tokens between the start of `place` and the position
  for (;;) {
    const int64_t tokens = pieces_.piece_tokens(current->piece_at(place));
    if (skip < tokens) break;
    skip -= tokens;
    ++place;
  }

  std::vector<Slice> slices;
  for (int64_t missing = options_.seq_tokens; missing > 0; ++place) {
    if (place == pieces_.pieces()) {
      current = epoch(++number);
      place = 0;
    }
    Slice slice = pieces_.piece(current->piece_at(place));
    slice.begin += skip;
    slice.tokens = std::min(slice.tokens - skip, missing);
    slice.starts_document = slice.starts_document && skip == 0;
    skip = 0;
    missing -= slice.tokens;
    slices.push_back(slice);
  }
  return slices;
}

}  // namespace lh
