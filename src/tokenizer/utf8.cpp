#include "tokenizer/utf8.h"

#include <cstring>

namespace lh {
namespace {

/// What may follow a lead byte: total length, and the range of the second byte.
struct LeadByte {
  uint8_t length;  // 0: never starts a character
  uint8_t second_low;
  uint8_t second_high;
};

LeadByte lead_byte(uint8_t byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xC2) return {0, 0, 0};
  if (byte < 0xE0) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};  // else overlong
  if (byte == 0xED) return {3, 0x80, 0x9F};  // else a surrogate
  if (byte < 0xF0) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};  // else overlong
  if (byte < 0xF4) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};  // else above U+10FFFF
  return {0, 0, 0};
}

/// Number of bytes at the front that agree with one well-formed character, and its full length.
struct Agreement {
  size_t matched;
  size_t length;
};

Agreement front_agreement(std::string_view text) {
  const LeadByte lead = lead_byte(static_cast<uint8_t>(text[0]));
  if (lead.length == 0) return {0, 0};
  size_t matched = 1;
  while (matched < lead.length && matched < text.size()) {
    const auto byte = static_cast<uint8_t>(text[matched]);
    const uint8_t low = matched == 1 ? lead.second_low : 0x80;
    const uint8_t high = matched == 1 ? lead.second_high : 0xBF;
    if (byte < low || byte > high) break;
    ++matched;
  }
  return {matched, lead.length};
}

}  // namespace

size_t valid_utf8_prefix(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    while (at + 8 <= text.size()) {  // eight ASCII bytes at a time
      uint64_t word;
      std::memcpy(&word, text.data() + at, 8);
      if (word & 0x8080808080808080ull) break;
      at += 8;
    }
    if (at == text.size()) break;
    const Agreement front = front_agreement(text.substr(at));
    if (front.length == 0 || front.matched < front.length) return at;
    at += front.length;
  }
  return at;
}

size_t invalid_utf8_length(std::string_view text) {
  const size_t matched = front_agreement(text).matched;
  return matched == 0 ? 1 : matched;
}

size_t incomplete_utf8_suffix(std::string_view text) {
  for (size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    const auto byte = static_cast<uint8_t>(text[text.size() - back]);
    if ((byte & 0xC0) == 0x80) continue;  // a continuation byte: its lead is further left
    const Agreement tail = front_agreement(text.substr(text.size() - back));
    return tail.matched == back && tail.length > back ? back : 0;
  }
  return 0;
}

CodePoint front_code_point(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<uint8_t>(text[i])); };
  const uint32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xE0) return {(lead & 0x1F) << 6 | (byte(1) & 0x3F), 2};
  if (lead < 0xF0) return {(lead & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F), 3};
  return {(lead & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F),
          4};
}

void append_utf8(std::string& out, uint32_t code_point) {
  const auto put = [&](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | code_point >> 6);
    put(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    put(0xE0 | code_point >> 12);
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  } else {
    put(0xF0 | code_point >> 18);
    put(0x80 | (code_point >> 12 & 0x3F));
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  }
}

}  // namespace lh
