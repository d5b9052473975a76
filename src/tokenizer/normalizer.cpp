#include "tokenizer/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <iterator>
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

// Characters of Unicode 10 and later (and unassigned ones) with a combining class or a canonical
// decomposition. The normaliser that published tokenizers were made with is of Unicode 9, where
// all of them stand alone. Fixing the version also makes encodings independent of the installed
// utf8proc. Sorted.
constexpr Range kUnicode10AndLater[] = {
    {0x05C8, 0x05C9},   {0x07FD, 0x07FD},   {0x0897, 0x089F},   {0x08CA, 0x08D3},
    {0x09FE, 0x09FE},   {0x0C3C, 0x0C3C},   {0x0D3B, 0x0D3C},   {0x0EBA, 0x0EBA},
    {0x1715, 0x1715},   {0x1ABF, 0x1AF0},   {0x1DF6, 0x1DFA},   {0xA82C, 0xA82C},
    {0x105C9, 0x105C9}, {0x105E4, 0x105E4}, {0x10D24, 0x10D27}, {0x10D69, 0x10D6D},
    {0x10EAB, 0x10EAC}, {0x10ECB, 0x10ECF}, {0x10EF0, 0x10EFB}, {0x10EFD, 0x10EFF},
    {0x10F46, 0x10F50}, {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x1133B, 0x1133B},
    {0x11383, 0x11383}, {0x11385, 0x11385}, {0x1138E, 0x1138E}, {0x11391, 0x11391},
    {0x113B8, 0x113B8}, {0x113BB, 0x113BB}, {0x113C2, 0x113C2}, {0x113C5, 0x113C5},
    {0x113C7, 0x113C9}, {0x113CE, 0x113D0}, {0x1145E, 0x1145E}, {0x11839, 0x1183A},
    {0x11930, 0x11930}, {0x11938, 0x11938}, {0x1193D, 0x1193E}, {0x11943, 0x11943},
    {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99},
    {0x11D42, 0x11D42}, {0x11D44, 0x11D45}, {0x11D97, 0x11D97}, {0x11F41, 0x11F42},
    {0x1611E, 0x16129}, {0x1612F, 0x1612F}, {0x16D63, 0x16D63}, {0x16D67, 0x16D6A},
    {0x16FF0, 0x16FF1}, {0x1D127, 0x1D128}, {0x1D250, 0x1D252}, {0x1D25B, 0x1D25C},
    {0x1D25F, 0x1D25F}, {0x1D280, 0x1D281}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136},
    {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF}, {0x1E5EE, 0x1E5EF},
    {0x1E6E3, 0x1E6E3}, {0x1E6E6, 0x1E6E6}, {0x1E6EE, 0x1E6EF}, {0x1E6F5, 0x1E6F5}};

bool inert(uint32_t code_point) {
  if (code_point < 0x300) return true;
  for (const Range& range : kInert)
    if (code_point <= range.high) return code_point >= range.low;
  return false;
}

bool later_than_unicode_9(uint32_t code_point) {
  const auto* later =
      std::lower_bound(std::begin(kUnicode10AndLater), std::end(kUnicode10AndLater), code_point,
                       [](const Range& range, uint32_t value) { return range.high < value; });
  return later != std::end(kUnicode10AndLater) && code_point >= later->low;
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
  size_t copied = 0;  // text[0, copied) is in the buffer, normalised
  size_t start = 0;   // of what may still change: the last inert character and what follows it
  for (size_t at = 0; at < text.size();) {
    const CodePoint front = front_code_point(text.substr(at));
    if (inert(front.value)) {
      start = at;
      at += front.bytes;
      continue;
    }
    if (later_than_unicode_9(front.value)) {
      start = at += front.bytes;
      continue;
    }
    size_t end = at + front.bytes;
    while (end < text.size()) {
      const CodePoint next = front_code_point(text.substr(end));
      if (inert(next.value) || later_than_unicode_9(next.value)) break;
      end += next.bytes;
    }
    buffer += text.substr(copied, start - copied);
    append_nfc(text.substr(start, end - start), buffer, code_points);
    copied = start = at = end;
  }
  if (copied == 0) return text;
  buffer += text.substr(copied);
  return buffer;
}

}  // namespace lh
