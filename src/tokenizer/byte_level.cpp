#include "tokenizer/byte_level.h"

#include "tokenizer/utf8.h"

namespace lh {
namespace {

constexpr uint32_t kFirstStandIn = 0x100;  // where the unprintable bytes are moved to
constexpr uint32_t kAlphabetEnd = 0x144;   // 68 bytes have no character of their own

bool stands_for_itself(uint32_t byte) {
  return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

struct Alphabet {
  std::array<uint32_t, 256> character_of{};
  std::array<int16_t, kAlphabetEnd> byte_of{};
  std::array<uint8_t, 256> in_character_order{};

  Alphabet() {
    byte_of.fill(-1);
    uint32_t stand_in = kFirstStandIn;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      character_of[byte] = stands_for_itself(byte) ? byte : stand_in++;
      byte_of[character_of[byte]] = static_cast<int16_t>(byte);
    }
    size_t n = 0;
    for (const int16_t byte : byte_of)
      if (byte >= 0) in_character_order[n++] = static_cast<uint8_t>(byte);
  }
};

const Alphabet& alphabet() {
  static const Alphabet instance;
  return instance;
}

}  // namespace

const std::array<uint8_t, 256>& byte_alphabet() {
  return alphabet().in_character_order;
}

std::string bytes_to_alphabet(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size() * 2);
  for (const char byte : bytes)
    append_utf8(text, alphabet().character_of[static_cast<uint8_t>(byte)]);
  return text;
}

std::optional<std::string> alphabet_to_bytes(std::string_view text) {
  std::string bytes;
  bytes.reserve(text.size());
  while (!text.empty()) {
    const CodePoint front = front_code_point(text);
    if (front.value >= kAlphabetEnd || alphabet().byte_of[front.value] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(alphabet().byte_of[front.value]));
    text.remove_prefix(front.bytes);
  }
  return bytes;
}

}  // namespace lh
