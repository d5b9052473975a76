#include "tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <utility>

#include "base/error.h"

namespace lh {

// A limit, not a setting: the longest legitimate piece (many megabytes of one character) stays far
// below it, a pattern with nested repeats reaches it in seconds instead of never ending.
constexpr uint32_t kMatchLimit = 100'000'000;
constexpr size_t kMaxPatternBytes = 16 << 10;
constexpr size_t kJitStackStart = 32 << 10;
constexpr size_t kJitStackMax = 8 << 20;

struct Regex::Code {
  pcre2_code* compiled = nullptr;
  std::string source;
  bool jit = false;
  ~Code() { pcre2_code_free(compiled); }
};

struct Regex::Workspace::Buffers {
  // One pair of offsets is enough: groups are never read.
  pcre2_match_data* match = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(kJitStackStart, kJitStackMax, nullptr);
  ~Buffers() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(match);
  }
};

Regex::Workspace::Workspace() : buffers_(std::make_unique<Buffers>()) {
  LH_CHECK(buffers_->match != nullptr && buffers_->context != nullptr, "[regex] out of memory");
  pcre2_set_match_limit(buffers_->context, kMatchLimit);
  if (buffers_->stack != nullptr)
    pcre2_jit_stack_assign(buffers_->context, nullptr, buffers_->stack);
}

Regex::Workspace::~Workspace() = default;

namespace {

std::string error_text(int code) {
  PCRE2_UCHAR message[256];
  if (pcre2_get_error_message(code, message, sizeof message) < 0)
    return fmt::format("PCRE2 error {}", code);
  return reinterpret_cast<const char*>(message);
}

}  // namespace

Regex::Regex(std::string_view pattern, Syntax syntax, std::string_view where)
    : code_(std::make_unique<Code>()) {
  if (pattern.empty()) fail<IoError>("{}: the pattern is empty", where);
  if (pattern.size() > kMaxPatternBytes)
    fail<IoError>("{}: the pattern has {} bytes; at most {} are supported", where, pattern.size(),
                  kMaxPatternBytes);
  code_->source = pattern;
  // \C could cut a character in two.
  uint32_t options = PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C;
  std::string portable;
  if (syntax == Syntax::kLiteral) {
    options |= PCRE2_LITERAL;
    portable = pattern;
  } else {
    options |= PCRE2_UCP;
    portable = portable_pattern(pattern, where);
  }
  if (syntax == Syntax::kLiteral) options &= ~PCRE2_NEVER_BACKSLASH_C;  // PCRE2 refuses the pair
  int error = 0;
  size_t offset = 0;
  code_->compiled = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(portable.data()), portable.size(),
                                  options, &error, &offset, nullptr);
  if (code_->compiled == nullptr)
    fail<IoError>("{}: PCRE2 rejects the pattern '{}': {}", where, pattern, error_text(error));
  code_->jit = pcre2_jit_compile(code_->compiled, PCRE2_JIT_COMPLETE) == 0;
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

std::optional<Regex::Match> Regex::find(std::string_view text, size_t from,
                                        Workspace& workspace) const {
  const Workspace::Buffers& buffers = *workspace.buffers_;
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  int found = PCRE2_ERROR_JIT_STACKLIMIT;
  if (code_->jit)
    found = pcre2_jit_match(code_->compiled, subject, text.size(), from, PCRE2_NO_UTF_CHECK,
                            buffers.match, buffers.context);
  if (found == PCRE2_ERROR_JIT_STACKLIMIT)  // the interpreter keeps its frames on the heap
    found = pcre2_match(code_->compiled, subject, text.size(), from,
                        PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, buffers.match, buffers.context);
  if (found == PCRE2_ERROR_NOMATCH) return std::nullopt;
  if (found < 0)
    fail<Error>("[tokenizer] the split pattern '{}' failed at byte {} of {}: {}", code_->source,
                from, text.size(), error_text(found));
  const size_t* offsets = pcre2_get_ovector_pointer(buffers.match);
  if (offsets[0] < from || offsets[1] < offsets[0])  // \K can do this
    fail<Error>("[tokenizer] the split pattern '{}' matched backwards", code_->source);
  return Match{offsets[0], offsets[1]};
}

}  // namespace lh
