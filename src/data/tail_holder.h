// Holds back the last bytes of a stream of segments, to make them the validation text.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>

#include "data/document_encoder.h"

namespace lh {

class TailHolder {
 public:
  /// `emit` gets the segments in order: those before the last `tail_bytes` bytes as kTrain.
  TailHolder(int64_t tail_bytes, std::function<void(EncodeItem&&)> emit);

  void add(EncodeItem&& item);

  /// Emits the rest. The tail begins at a line's start, or at least a character's, at or shortly
  /// before its nominal size; a document that it cuts becomes two. A JSONL record is not cut.
  /// ConfigError when the whole input is not longer than the tail.
  void finish();

 private:
  void emit_train(EncodeItem&& item);

  int64_t tail_bytes_;
  std::function<void(EncodeItem&&)> emit_;
  std::deque<EncodeItem> held_;
  int64_t held_bytes_ = 0;
  bool any_train_ = false;
};

}  // namespace lh
