#include "data/document_splitter.h"

#include <algorithm>
#include <vector>

#include "base/error.h"

namespace lh {

namespace {

bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

bool is_blank(std::string_view line) {
  return line.find_first_not_of(" \t\r\v\f") == std::string_view::npos;
}

/// A place where the split patterns in use end one match and start the next: before " x" after a
/// letter, and before a letter or a longer UTF-8 sequence after a line end.
bool is_candidate(std::string_view text, size_t cut) {
  const char before = text[cut - 1], after = text[cut];
  if (before == '\n') return is_letter(after) || static_cast<unsigned char>(after) >= 0xC2;
  return after == ' ' && is_letter(before) && is_letter(text[cut + 1]);
}

/// Whether the tokens around the place are those of the two sides. The patterns look at most a few
/// characters beyond a match, so a window shows what the whole text would.
bool is_harmless(const Tokenizer& tokenizer, std::string_view text, size_t cut) {
  constexpr size_t kWindow = 256;
  const size_t left = std::min(cut, kWindow), right = std::min(text.size() - cut, kWindow);
  std::vector<TokenId> together, apart;
  tokenizer.encode(text.substr(cut - left, left + right), together);
  tokenizer.encode(text.substr(cut - left, left), apart);
  tokenizer.encode(text.substr(cut, right), apart);
  return together == apart;
}

}  // namespace

DocumentSplitter::DocumentSplitter(Options options, const Tokenizer& tokenizer,
                                   std::function<void(Segment&&)> emit)
    : options_(std::move(options)), tokenizer_(tokenizer), emit_(std::move(emit)) {
  if (options_.split == DocumentSplit::kSeparator && options_.separator.empty())
    fail<ConfigError>("the document separator is an empty string");
  if (options_.split == DocumentSplit::kBlankLines && options_.blank_lines < 1)
    fail<ConfigError>("documents separated by {} blank lines: expected at least 1",
                      options_.blank_lines);
  LH_CHECK(options_.segment_bytes >= 2048, "[data] segments of {} bytes", options_.segment_bytes);
  next_cut_ = 2 * static_cast<size_t>(options_.segment_bytes);
}

void DocumentSplitter::add(std::string_view bytes) {
  buffer_.append(bytes);
  switch (options_.split) {
    case DocumentSplit::kFile:
      cut_segments(buffer_.size());
      break;
    case DocumentSplit::kBlankLines:
      split_blank_lines(false);
      cut_segments(run_lines_ > 0 ? run_begin_ : scanned_);
      break;
    case DocumentSplit::kSeparator:
      split_separator();
      cut_segments(scanned_);
      break;
    case DocumentSplit::kLine:
      split_lines(false);
      break;
  }
  // What is left is moved to the front once per call, not once per document.
  buffer_.erase(0, begin_);
  scanned_ -= std::min(scanned_, begin_);
  run_begin_ -= std::min(run_begin_, begin_);
  begin_ = 0;
}

void DocumentSplitter::end_file() {
  switch (options_.split) {
    case DocumentSplit::kFile:
      end_document(buffer_.size(), buffer_.size());
      break;
    case DocumentSplit::kSeparator:  // which may also end the last document
      if (started_ || begin_ < buffer_.size()) end_document(buffer_.size(), buffer_.size());
      break;
    case DocumentSplit::kBlankLines: {
      split_blank_lines(true);
      const bool separated = run_lines_ >= options_.blank_lines;
      const size_t end = separated ? run_begin_ : buffer_.size();
      if (started_ || end > begin_) end_document(end, buffer_.size());
      break;
    }
    case DocumentSplit::kLine:
      split_lines(true);
      break;
  }
  buffer_.clear();
  begin_ = scanned_ = run_begin_ = 0;
  run_lines_ = line_ = 0;
}

void DocumentSplitter::split_separator() {
  const std::string& separator = options_.separator;
  for (;;) {
    const size_t found = buffer_.find(separator, scanned_);
    if (found == std::string::npos) break;
    scanned_ = found + separator.size();
    end_document(found, scanned_);
  }
  // The end of the buffer may hold the first part of a separator.
  if (buffer_.size() >= separator.size())
    scanned_ = std::max(scanned_, buffer_.size() - separator.size() + 1);
}

void DocumentSplitter::split_blank_lines(bool at_end) {
  while (scanned_ < buffer_.size()) {
    size_t end = buffer_.find('\n', scanned_);
    if (end == std::string::npos && !at_end) return;
    end = end == std::string::npos ? buffer_.size() : end + 1;
    std::string_view line = std::string_view(buffer_).substr(scanned_, end - scanned_);
    if (line.ends_with('\n')) line.remove_suffix(1);
    if (is_blank(line)) {
      if (run_lines_++ == 0) run_begin_ = scanned_;
    } else {
      if (run_lines_ >= options_.blank_lines) {
        if (started_ || run_begin_ > begin_)
          end_document(run_begin_, scanned_);
        else
          begin_ = scanned_;  // blank lines in front of the first document
      }
      run_lines_ = 0;
    }
    scanned_ = end;
  }
}

void DocumentSplitter::split_lines(bool at_end) {
  for (;;) {
    const size_t end = buffer_.find('\n', scanned_);
    if (end == std::string::npos) break;
    emit_line(end);
    begin_ = scanned_ = end + 1;
  }
  scanned_ = buffer_.size();
  if (at_end && begin_ < buffer_.size()) emit_line(buffer_.size());
}

void DocumentSplitter::emit_line(size_t end) {
  ++line_;
  const std::string_view line = std::string_view(buffer_).substr(begin_, end - begin_);
  if (!is_blank(line)) emit_({std::string(line), true, true, line_});
}

void DocumentSplitter::end_document(size_t end, size_t next) {
  emit_({buffer_.substr(begin_, end - begin_), !started_, true, 0});
  begin_ = next;
  started_ = false;
  next_cut_ = 2 * static_cast<size_t>(options_.segment_bytes);
}

/// Emits the front of the current document while it is long; only bytes before `safe_end` are
/// known to belong to it.
void DocumentSplitter::cut_segments(size_t safe_end) {
  const size_t segment = static_cast<size_t>(options_.segment_bytes);
  while (safe_end > begin_ && safe_end - begin_ >= next_cut_) {
    const size_t cut = find_cut(begin_ + segment, safe_end - segment / 2);
    if (cut == 0) {
      // Nothing to cut at (e.g. one character repeated): wait until there is twice as much, which
      // keeps the search linear in all.
      next_cut_ = 2 * (safe_end - begin_);
      return;
    }
    emit_({buffer_.substr(begin_, cut - begin_), !started_, false, 0});
    begin_ = cut;
    started_ = true;
    next_cut_ = 2 * segment;
  }
}

size_t DocumentSplitter::find_cut(size_t from, size_t to) const {
  constexpr int kTries = 32;
  int tries = 0;
  const std::string_view text = buffer_;
  for (size_t cut = from; cut < to && tries < kTries; ++cut) {
    if (!is_candidate(text, cut)) continue;
    // Around the place, only this document's own text counts.
    if (is_harmless(tokenizer_, text.substr(begin_), cut - begin_)) return cut;
    ++tries;
  }
  return 0;
}

}  // namespace lh
