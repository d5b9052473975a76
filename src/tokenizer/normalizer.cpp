#include "tokenizer/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <vector>

#include "base/error.h"
#include "tokenizer/utf8.h"

namespace lh {
namespace {

struct Range {
  uint32_t low, high;
};

// Characters that no neighbour changes and that change no neighbour to their left: combining
// class 0, NFC_Quick_Check=Yes, never the second of a composition. Text between two of them is
// normalised on its own; text made of them alone is left alone. Not complete, only common.
constexpr Range kInert[] = {
    {0x0000, 0x02FF}, {0x0400, 0x0482}, {0x048A, 0x0556}, {0x05D0, 0x05EA}, {0x0620, 0x064A},
    {0x0660, 0x066F}, {0x1E00, 0x1EFF}, {0x2010, 0x2027}, {0x3001, 0x3029}, {0x3041, 0x3096},
    {0x30A1, 0x30FA}, {0x4E00, 0x9FFF}, {0xAC00, 0xD7A3}, {0xFF01, 0xFF9D},
};

bool inert(uint32_t code_point) {
  if (code_point < 0x300) return true;
  for (const Range& range : kInert)
    if (code_point <= range.high) return code_point >= range.low;
  return false;
}

/// Canonical decomposition of `text`, each run of combining marks sorted by class. utf8proc would
/// sort by exchanging neighbours, which takes minutes on a megabyte of marks.
void decompose(std::string_view text, std::vector<utf8proc_int32_t>& out) {
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | UTF8PROC_STABLE);
  std::array<utf8proc_int32_t, 32> expansion;  // the longest canonical one has 4
  while (!text.empty()) {
    const CodePoint front = front_code_point(text);
    text.remove_prefix(front.bytes);
    int boundary_class = 0;
    const utf8proc_ssize_t length =
        utf8proc_decompose_char(static_cast<utf8proc_int32_t>(front.value), expansion.data(),
                                expansion.size(), options, &boundary_class);
    LH_CHECK(length > 0 && length <= static_cast<utf8proc_ssize_t>(expansion.size()),
             "[tokenizer] utf8proc cannot decompose U+{:04X}: {}", front.value, length);
    out.insert(out.end(), expansion.begin(), expansion.begin() + length);
  }
  const auto combining_class = [](utf8proc_int32_t code_point) {
    return utf8proc_get_property(code_point)->combining_class;
  };
  for (auto at = out.begin(); at != out.end();) {
    if (combining_class(*at) == 0) {
      ++at;
      continue;
    }
    const auto run_end = std::find_if(
        at, out.end(), [&](utf8proc_int32_t mark) { return combining_class(mark) == 0; });
    std::stable_sort(at, run_end, [&](utf8proc_int32_t a, utf8proc_int32_t b) {
      return combining_class(a) < combining_class(b);
    });
    at = run_end;
  }
}

void append_nfc(std::string_view text, std::string& out,
                std::vector<utf8proc_int32_t>& code_points) {
  code_points.clear();
  decompose(text, code_points);
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE);
  const utf8proc_ssize_t length = utf8proc_normalize_utf32(
      code_points.data(), static_cast<utf8proc_ssize_t>(code_points.size()), options);
  LH_CHECK(length >= 0, "[tokenizer] utf8proc cannot compose: {}", length);
  for (utf8proc_ssize_t i = 0; i < length; ++i)
    append_utf8(out, static_cast<uint32_t>(code_points[static_cast<size_t>(i)]));
}

}  // namespace

std::string_view normalize_nfc(std::string_view text, std::string& buffer) {
  buffer.clear();
  std::vector<utf8proc_int32_t> code_points;
  size_t copied = 0;      // text[0, copied) is in the buffer, normalised
  size_t last_inert = 0;  // start of the last inert character: what follows may combine with it
  for (size_t at = 0; at < text.size();) {
    const CodePoint front = front_code_point(text.substr(at));
    if (inert(front.value)) {
      last_inert = at;
      at += front.bytes;
      continue;
    }
    size_t end = at + front.bytes;
    while (end < text.size()) {
      const CodePoint next = front_code_point(text.substr(end));
      if (inert(next.value)) break;
      end += next.bytes;
    }
    buffer += text.substr(copied, last_inert - copied);
    append_nfc(text.substr(last_inert, end - last_inert), buffer, code_points);
    copied = last_inert = at = end;
  }
  if (copied == 0) return text;
  buffer += text.substr(copied);
  return buffer;
}

}  // namespace lh
