// The byte alphabet of GPT-2 (Radford et al. 2019; also "ByteLevel" in the standard
// tokenizer.json): each of the 256 bytes is written as one printable character, so that a
// vocabulary of byte strings can be stored as text.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace lh {

/// The 256 bytes in the order of the characters that stand for them: 33..126, 161..172, 174..255
/// stand for themselves, the rest are U+0100, U+0101, ... in order of the byte.
const std::array<uint8_t, 256>& byte_alphabet();

/// The text form of a byte string.
std::string bytes_to_alphabet(std::string_view bytes);

/// The byte string of a text form; nullopt when a character is not in the alphabet.
std::optional<std::string> alphabet_to_bytes(std::string_view text);

}  // namespace lh
