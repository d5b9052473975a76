// Regular expressions of tokenizer files, through PCRE2 with JIT, matching what the HF tokenizers
// library (Oniguruma) matches: \s is Unicode White_Space, \p{L} and \p{N} follow Unicode 16.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace lh {

/// Compiled once, then shared by any number of threads.
class Regex {
 public:
  enum class Syntax { kPattern, kLiteral };

  /// Throws IoError "<where>: ..." when the pattern is malformed or uses what PCRE2 would read
  /// differently (set operations inside [...]).
  Regex(std::string_view pattern, Syntax syntax, std::string_view where);
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

  /// Buffers of one matching thread.
  class Workspace {
   public:
    Workspace();
    ~Workspace();
    Workspace(const Workspace&) = delete;
    Workspace& operator=(const Workspace&) = delete;

   private:
    friend class Regex;
    struct Buffers;
    std::unique_ptr<Buffers> buffers_;
  };

  struct Match {
    size_t begin;
    size_t end;
  };

  /// The first match at or after `from` in well-formed UTF-8. Throws Error when the pattern needs
  /// more backtracking than the limit allows.
  std::optional<Match> find(std::string_view text, size_t from, Workspace& workspace) const;

 private:
  struct Code;
  std::unique_ptr<Code> code_;
};

/// The pattern with \s, \S, \p{L} and \p{N} spelled out where PCRE2's own tables differ.
/// Exposed for the tests.
std::string portable_pattern(std::string_view pattern, std::string_view where);

}  // namespace lh
