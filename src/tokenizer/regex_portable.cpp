// Rewrites a pattern written for Oniguruma so that PCRE2 matches the same text. Debian 12's
// PCRE2 knows Unicode 14 and counts U+180E as a space; tokenizer files in the wild are read with
// Unicode 16, where it is none. Letters and numbers of Unicode 15 to 16 are therefore added to
// \p{L} and \p{N}, and \s is written out. A newer PCRE2 knows the added ranges: harmless.
#include "base/error.h"
#include "tokenizer/regex.h"

namespace lh {
namespace {

// Property White_Space (PropList.txt), unchanged since Unicode 6.3.
constexpr std::string_view kSpaces =
    R"(\t-\r\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

// General categories L* and N* of Unicode 16 minus those of Unicode 14 (UnicodeData.txt).
constexpr std::string_view kNewLetters =
    R"(\x{1c89}-\x{1c8a}\x{a7cb}-\x{a7cd}\x{a7da}-\x{a7dc}\x{105c0}-\x{105f3}\x{10d4a}-\x{10d65})"
    R"(\x{10d6f}-\x{10d85}\x{10ec2}-\x{10ec4}\x{1123f}-\x{11240}\x{11380}-\x{11389}\x{1138b})"
    R"(\x{1138e}\x{11390}-\x{113b5}\x{113b7}\x{113d1}\x{113d3}\x{11bc0}-\x{11be0}\x{11f02})"
    R"(\x{11f04}-\x{11f10}\x{11f12}-\x{11f33}\x{1342f}\x{13441}-\x{13446}\x{13460}-\x{143fa})"
    R"(\x{16100}-\x{1611d}\x{16d40}-\x{16d6c}\x{18cff}\x{1b132}\x{1b155}\x{1df25}-\x{1df2a})"
    R"(\x{1e030}-\x{1e06d}\x{1e4d0}-\x{1e4eb}\x{1e5d0}-\x{1e5ed}\x{1e5f0}\x{2b739})"
    R"(\x{2ebf0}-\x{2ee5d}\x{31350}-\x{323af})";
constexpr std::string_view kNewNumbers =
    R"(\x{10d40}-\x{10d49}\x{116d0}-\x{116e3}\x{11bf0}-\x{11bf9}\x{11f50}-\x{11f59})"
    R"(\x{16130}-\x{16139}\x{16d70}-\x{16d79}\x{1ccf0}-\x{1ccf9}\x{1d2c0}-\x{1d2d3})"
    R"(\x{1e4f0}-\x{1e4f9}\x{1e5f1}-\x{1e5fa})";

struct Replacement {
  std::string_view from;
  std::string in_class;  // between [ and ]; empty: leave as it is there
  bool negated;          // outside a class: [^...]
};

const Replacement* replacement_at(std::string_view rest) {
  static const Replacement kReplacements[] = {
      {R"(\s)", std::string(kSpaces), false},
      {R"(\S)", std::string(kSpaces), true},
      {R"(\p{L})", R"(\p{L})" + std::string(kNewLetters), false},
      {R"(\P{L})", R"(\p{L})" + std::string(kNewLetters), true},
      {R"(\p{N})", R"(\p{N})" + std::string(kNewNumbers), false},
      {R"(\P{N})", R"(\p{N})" + std::string(kNewNumbers), true},
  };
  for (const Replacement& replacement : kReplacements)
    if (rest.starts_with(replacement.from)) return &replacement;
  return nullptr;
}

}  // namespace

std::string portable_pattern(std::string_view pattern, std::string_view where) {
  std::string out;
  bool in_class = false;
  size_t class_begin = 0;
  for (size_t at = 0; at < pattern.size();) {
    const std::string_view rest = pattern.substr(at);
    if (rest[0] == '\\') {
      const Replacement* replacement = replacement_at(rest);
      // A negated set can't be spelled out inside a class; PCRE2's own is used there.
      if (replacement != nullptr && !(in_class && replacement->negated)) {
        out += in_class ? replacement->in_class
                        : (replacement->negated ? "[^" : "[") + replacement->in_class + "]";
        at += replacement->from.size();
      } else {
        out += rest.substr(0, 2);
        at += 2;
      }
      continue;
    }
    if (in_class) {
      const bool posix = rest.starts_with("[:");
      if (rest.starts_with("&&") || (rest[0] == '[' && !posix))
        fail<IoError>(
            "{}: the pattern '{}' has a nested set or && inside [...] at byte {}; write \\[ or \\& "
            "for the character itself, set operations are not supported",
            where, pattern, at);
      if (posix) {
        const size_t close = rest.find(":]");
        if (close == rest.npos) fail<IoError>("{}: '[:' without ':]' in '{}'", where, pattern);
        out += rest.substr(0, close + 2);
        at += close + 2;
        continue;
      }
      // A ] right after [ or [^ is the character itself.
      if (rest[0] == ']' && at != class_begin) in_class = false;
    } else if (rest[0] == '[') {
      in_class = true;
      class_begin = at + (rest.starts_with("[^") ? 2 : 1);
      out += pattern.substr(at, class_begin - at);
      at = class_begin;
      continue;
    }
    out += rest[0];
    ++at;
  }
  return out;
}

}  // namespace lh
