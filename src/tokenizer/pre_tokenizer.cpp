#include "tokenizer/pre_tokenizer.h"

#include <string>

#include "base/error.h"
#include "base/text.h"
#include "tokenizer/utf8.h"

namespace lh {

void PreTokenizer::apply(size_t step, const Piece& piece, Regex::Workspace& workspace,
                         const Sink& sink) const {
  const std::string_view text = piece.text;
  if (text.empty()) return;
  if (step == steps_.size()) {
    sink(piece);
    return;
  }
  const Step& now = steps_[step];
  if (now.kind == Step::Kind::kPrefixSpace) {
    if (text.front() == ' ') return apply(step + 1, piece, workspace, sink);
    std::string prefixed;
    prefixed.reserve(text.size() + 1);
    prefixed += ' ';
    prefixed += text;
    return apply(step + 1, {prefixed, piece.origin, true}, workspace, sink);
  }
  const auto emit = [&](size_t begin, size_t end) {
    if (begin == end) return;
    const bool first = begin == 0;
    const size_t shift = begin - (piece.space_added && !first ? 1 : 0);
    apply(step + 1,
          {text.substr(begin, end - begin), piece.origin + shift, piece.space_added && first},
          workspace, sink);
  };
  const Regex& regex = now.regex.front();
  const bool keep_gaps = now.kind == Step::Kind::kSplit;
  size_t done = 0;
  size_t from = 0;
  bool matched_before = false;
  while (from <= text.size()) {
    const auto match = regex.find(text, from, workspace);
    if (!match) break;
    // An empty match cuts the text there, but not right behind the match before it.
    const bool empty = match->begin == match->end;
    if (!(empty && matched_before && match->end == done)) {
      if (keep_gaps) emit(done, match->begin);
      emit(match->begin, match->end);
      done = match->end;
      matched_before = true;
    }
    from = match->end;
    if (empty) {
      if (from == text.size()) break;
      from += front_code_point(text.substr(from)).bytes;
    }
  }
  if (keep_gaps) emit(done, text.size());
}

const std::vector<NamedPattern>& named_patterns() {
  static const std::vector<NamedPattern> kPatterns = {
      // Radford et al. 2019, encoder.py.
      {"gpt2", R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"},
      // Llama 3's tokenizer: contractions in any case, numbers in groups of three.
      {"llama3",
       R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
      // Qwen 2, 2.5 and 3: the same with single digits.
      {"qwen2",
       R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
  };
  return kPatterns;
}

std::string_view named_pattern(std::string_view name) {
  if (name == "qwen2.5" || name == "qwen3") name = "qwen2";
  std::vector<std::string> names;
  for (const NamedPattern& pattern : named_patterns()) {
    if (pattern.name == name) return pattern.regex;
    names.emplace_back(pattern.name);
  }
  fail<ConfigError>("unknown split pattern '{}': expected {}, qwen2.5 or qwen3{}", name,
                    fmt::join(names, ", "), did_you_mean(name, names));
}

}  // namespace lh
