// Cuts text into the pieces that BPE merges within: a sequence of regular-expression splits, each
// applied inside the pieces of the one before, as the pre_tokenizer of a tokenizer.json says.
#pragma once

#include <cstddef>
#include <functional>
#include <string_view>
#include <utility>
#include <vector>

#include "tokenizer/regex.h"

namespace lh {

class PreTokenizer {
 public:
  struct Step {
    /// kSplit: matches and the text between them become pieces. kKeepMatches: the text between
    /// matches is dropped. kPrefixSpace: a space goes in front of a piece that has none.
    enum class Kind { kSplit, kKeepMatches, kPrefixSpace } kind;
    std::vector<Regex> regex;  // one, none for kPrefixSpace
  };

  /// One step deeper costs one call frame; the file parser allows kMaxSteps.
  static constexpr size_t kMaxSteps = 32;

  explicit PreTokenizer(std::vector<Step> steps) : steps_(std::move(steps)) {}

  /// A piece of the text given to split, never empty.
  struct Piece {
    std::string_view text;
    size_t origin;             // where it starts in that text, an added space not counted
    bool space_added = false;  // its first character is an added space
  };
  /// Called with each piece in order.
  using Sink = std::function<void(const Piece&)>;

  void split(std::string_view text, Regex::Workspace& workspace, const Sink& sink) const {
    apply(0, {text, 0}, workspace, sink);
  }

 private:
  void apply(size_t step, const Piece& piece, Regex::Workspace& workspace, const Sink& sink) const;

  std::vector<Step> steps_;
};

/// Patterns by name: gpt2, llama3, qwen2 (also named qwen2.5 and qwen3: the same).
struct NamedPattern {
  std::string_view name;
  std::string_view regex;
};
const std::vector<NamedPattern>& named_patterns();

/// The regular expression of a named pattern; ConfigError with the known names otherwise.
std::string_view named_pattern(std::string_view name);

}  // namespace lh
