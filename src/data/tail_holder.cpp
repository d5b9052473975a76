#include "data/tail_holder.h"

#include "base/error.h"

namespace lh {

namespace {

int64_t bytes_of(const EncodeItem& item) {
  return static_cast<int64_t>(item.segment.text.size());
}

/// The line start at or before `cut` if it is near, else the start of the character there.
size_t back_to_boundary(const std::string& text, size_t cut) {
  constexpr size_t kNear = 4096;
  const size_t newline = cut == 0 ? std::string::npos : text.rfind('\n', cut - 1);
  if (newline != std::string::npos && cut - (newline + 1) <= kNear) return newline + 1;
  for (size_t i = 0; i < 4 && cut > i; ++i)
    if ((static_cast<unsigned char>(text[cut - i]) & 0xC0) != 0x80) return cut - i;
  return cut;  // not UTF-8
}

}  // namespace

TailHolder::TailHolder(int64_t tail_bytes, std::function<void(EncodeItem&&)> emit)
    : tail_bytes_(tail_bytes), emit_(std::move(emit)) {
  LH_CHECK(tail_bytes >= 1, "[data] tail of {} bytes", tail_bytes);
}

void TailHolder::emit_train(EncodeItem&& item) {
  item.part = Part::kTrain;
  any_train_ = true;
  emit_(std::move(item));
}

void TailHolder::add(EncodeItem&& item) {
  held_bytes_ += bytes_of(item);
  held_.push_back(std::move(item));
  while (held_bytes_ - bytes_of(held_.front()) >= tail_bytes_) {
    held_bytes_ -= bytes_of(held_.front());
    emit_train(std::move(held_.front()));
    held_.pop_front();
  }
}

void TailHolder::finish() {
  if (!any_train_ && held_bytes_ <= tail_bytes_)
    fail<ConfigError>("the last {} bytes were asked for validation, but the input has only {}",
                      tail_bytes_, held_bytes_);
  EncodeItem& front = held_.front();
  const size_t excess = static_cast<size_t>(held_bytes_ - tail_bytes_);
  const size_t cut = front.jsonl ? 0 : back_to_boundary(front.segment.text, excess);
  if (cut > 0 || !front.segment.first) {
    // The document's front stays in training and ends there, perhaps with an empty segment.
    EncodeItem head = front;
    head.segment.text.resize(cut);
    head.segment.last = true;
    emit_train(std::move(head));
    front.segment.text.erase(0, cut);
    front.segment.first = true;
  }
  for (EncodeItem& item : held_) {
    item.part = Part::kValid;
    emit_(std::move(item));
  }
  held_.clear();
  held_bytes_ = 0;
}

}  // namespace lh
