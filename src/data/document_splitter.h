// Cuts a stream of bytes into documents, and long documents into segments that tokenize apart as
// they do together, so that one large file is tokenized by all threads in bounded memory.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "tokenizer/tokenizer.h"

namespace lh {

enum class DocumentSplit {
  kFile,        // a file is a document
  kBlankLines,  // at runs of blank lines, which belong to no document
  kSeparator,   // at a literal string, which belongs to no document
  kLine,        // each line that is not blank: JSONL records, never cut into segments
};

/// A part of a document, in order. A document may end with an empty segment.
struct Segment {
  std::string text;
  bool first = true;
  bool last = true;
  int64_t line = 0;  // kLine: the line's number in its file, from 1
};

class DocumentSplitter {
 public:
  struct Options {
    DocumentSplit split = DocumentSplit::kFile;
    int64_t blank_lines = 1;
    std::string separator;
    int64_t segment_bytes = 1 << 18;  // about the size of segments; at least 2 KiB
  };

  /// `emit` gets the segments. `tokenizer` decides where a cut is harmless.
  DocumentSplitter(Options options, const Tokenizer& tokenizer,
                   std::function<void(Segment&&)> emit);

  void add(std::string_view bytes);

  /// Ends the file, and with it the document. The splitter is then ready for the next file.
  void end_file();

 private:
  void split_blank_lines(bool at_end);
  void split_separator();
  void split_lines(bool at_end);
  void end_document(size_t end, size_t next);
  void emit_line(size_t end);
  void cut_segments(size_t safe_end);
  size_t find_cut(size_t from, size_t to) const;

  Options options_;
  const Tokenizer& tokenizer_;
  std::function<void(Segment&&)> emit_;

  std::string buffer_;
  size_t begin_ = 0;       // of the current document's rest in the buffer
  size_t scanned_ = 0;     // no separator starts before this; or: start of the current line
  size_t run_begin_ = 0;   // kBlankLines: where the current run of blank lines began
  int64_t run_lines_ = 0;  // and its length
  int64_t line_ = 0;
  bool started_ = false;  // a segment of the current document was emitted
  size_t next_cut_ = 0;   // size of the rest at which a cut is tried again
};

}  // namespace lh
