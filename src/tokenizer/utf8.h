// UTF-8 at the level the tokenizer needs: where it is well formed, how long an ill-formed
// sequence is, and how to read and write one code point.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace lh {

/// Length in bytes of the longest well-formed prefix (Unicode 16, table 3-7: no surrogates, no
/// overlong forms, nothing above U+10FFFF).
size_t valid_utf8_prefix(std::string_view text);

/// Length (1 to 3) of the ill-formed sequence that `text` starts with: a maximal subpart in the
/// sense of Unicode section 3.9, the unit that decoders such as Python's errors="replace" turn
/// into one U+FFFD. Precondition: text is not empty and valid_utf8_prefix(text) == 0.
size_t invalid_utf8_length(std::string_view text);

/// Number of trailing bytes (0 to 3) that begin a character without completing it.
size_t incomplete_utf8_suffix(std::string_view text);

struct CodePoint {
  uint32_t value;
  uint32_t bytes;
};

/// The code point at the front of well-formed, non-empty text.
CodePoint front_code_point(std::string_view text);

void append_utf8(std::string& out, uint32_t code_point);

}  // namespace lh
