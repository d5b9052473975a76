#include "tokenizer/bpe_tokenizer.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/utf8.h"

namespace lh {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

/// An ill-formed sequence of the original that kReplacement stands for.
struct Patch {
  size_t at;
  std::string_view original;
};

AddedTokenFinder finder(const std::vector<AddedToken>& added, bool special_too, bool normalized) {
  std::vector<AddedToken> wanted;
  for (const AddedToken& token : added)
    if ((special_too || !token.special) && token.normalized == normalized) wanted.push_back(token);
  return AddedTokenFinder(std::move(wanted));
}

}  // namespace

/// Well-formed text with the places where it differs from the original, relative to `base`.
struct BpeTokenizer::RepairedText {
  std::string_view text;
  std::span<const Patch> patches;
  size_t base = 0;

  RepairedText sub(size_t begin, size_t end) const {
    const auto before = [](const Patch& patch, size_t at) { return patch.at < at; };
    const auto first = std::lower_bound(patches.begin(), patches.end(), base + begin, before);
    const auto last = std::lower_bound(first, patches.end(), base + end, before);
    return {text.substr(begin, end - begin), {first, last}, base + begin};
  }

  /// The original bytes.
  void restore(std::string& out) const {
    out.clear();
    size_t copied = 0;
    for (const Patch& patch : patches) {
      out += text.substr(copied, patch.at - base - copied);
      out += patch.original;
      copied = patch.at - base + kReplacement.size();
    }
    out += text.substr(copied);
  }
};

struct BpeTokenizer::Workspace {
  BpeModel::Workspace model;
  Regex::Workspace regex;
  std::string repaired, normalized, stretch, piece;
  std::vector<Patch> patches, normalized_patches;
};

/// Takes an idle workspace, or makes one, for the time of one call.
class BpeTokenizer::Lease {
 public:
  explicit Lease(const BpeTokenizer& owner) : owner_(owner) {
    const std::lock_guard lock(owner_.idle_mutex_);
    if (owner_.idle_.empty()) {
      workspace_ = std::make_unique<Workspace>();
    } else {
      workspace_ = std::move(owner_.idle_.back());
      owner_.idle_.pop_back();
    }
  }
  ~Lease() {
    const std::lock_guard lock(owner_.idle_mutex_);
    owner_.idle_.push_back(std::move(workspace_));
  }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  Workspace& operator*() { return *workspace_; }

 private:
  const BpeTokenizer& owner_;
  std::unique_ptr<Workspace> workspace_;
};

BpeTokenizer::BpeTokenizer(Parts parts)
    : token_bytes_(std::move(parts.token_bytes)),
      token_present_(std::move(parts.token_present)),
      model_(std::move(parts.model)),
      pre_tokenizer_(std::move(parts.splits)),
      ordinary_{finder(parts.added, false, false), finder(parts.added, false, true)},
      with_special_{finder(parts.added, true, false), finder(parts.added, true, true)},
      normalize_nfc_(parts.normalize_nfc),
      begin_of_text_(parts.begin_of_text),
      end_of_text_(parts.end_of_text),
      json_(std::move(parts.json)) {
  id_of_.reserve(token_bytes_.size());
  for (size_t id = 0; id < token_bytes_.size(); ++id)
    if (token_present_[id]) id_of_.emplace(token_bytes_[id], static_cast<TokenId>(id));
}

BpeTokenizer::~BpeTokenizer() = default;

void BpeTokenizer::encode(std::string_view text, std::vector<TokenId>& out) const {
  encode_text(text, ordinary_, out);
}

void BpeTokenizer::encode_with_special(std::string_view text, std::vector<TokenId>& out) const {
  encode_text(text, with_special_, out);
}

void BpeTokenizer::encode_text(std::string_view text, const Finders& finders,
                               std::vector<TokenId>& out) const {
  Lease lease(*this);
  Workspace& workspace = *lease;
  size_t valid = valid_utf8_prefix(text);
  if (valid == text.size()) return encode_raw({text, {}, 0}, finders, workspace, out);
  workspace.repaired.clear();
  workspace.patches.clear();
  for (std::string_view rest = text;;) {
    workspace.repaired += rest.substr(0, valid);
    rest.remove_prefix(valid);
    if (rest.empty()) break;
    const size_t bad = invalid_utf8_length(rest);
    workspace.patches.push_back({workspace.repaired.size(), rest.substr(0, bad)});
    workspace.repaired += kReplacement;
    rest.remove_prefix(bad);
    valid = valid_utf8_prefix(rest);
  }
  encode_raw({workspace.repaired, workspace.patches, 0}, finders, workspace, out);
}

void BpeTokenizer::encode_raw(const RepairedText& text, const Finders& finders,
                              Workspace& workspace, std::vector<TokenId>& out) const {
  size_t done = 0;
  while (const auto match = finders.raw.find(text.text, done)) {
    encode_normalized(text.sub(done, match->begin), finders, workspace, out);
    out.push_back(match->id);
    done = match->end;
  }
  encode_normalized(text.sub(done, text.text.size()), finders, workspace, out);
}

void BpeTokenizer::encode_normalized(const RepairedText& text, const Finders& finders,
                                     Workspace& workspace, std::vector<TokenId>& out) const {
  RepairedText normal = text;
  if (normalize_nfc_ && text.patches.empty()) {
    normal.text = normalize_nfc(text.text, workspace.normalized);
  } else if (normalize_nfc_) {
    // U+FFFD combines with nothing, so the stretches between the patches are independent.
    std::string& buffer = workspace.normalized;
    buffer.clear();
    workspace.normalized_patches.clear();
    size_t copied = 0;
    for (const Patch& patch : text.patches) {
      const size_t at = patch.at - text.base;
      buffer += normalize_nfc(text.text.substr(copied, at - copied), workspace.stretch);
      workspace.normalized_patches.push_back({buffer.size(), patch.original});
      buffer += kReplacement;
      copied = at + kReplacement.size();
    }
    buffer += normalize_nfc(text.text.substr(copied), workspace.stretch);
    normal = {buffer, workspace.normalized_patches, 0};
  }
  size_t done = 0;
  while (const auto match = finders.normalized.find(normal.text, done)) {
    encode_ordinary(normal.sub(done, match->begin), workspace, out);
    out.push_back(match->id);
    done = match->end;
  }
  encode_ordinary(normal.sub(done, normal.text.size()), workspace, out);
}

void BpeTokenizer::encode_ordinary(const RepairedText& text, Workspace& workspace,
                                   std::vector<TokenId>& out) const {
  const PreTokenizer::Sink encode_piece = [&](const PreTokenizer::Piece& piece) {
    if (text.patches.empty()) {
      model_.encode(piece.text, workspace.model, out);
      return;
    }
    const size_t own = piece.text.size() - (piece.space_added ? 1 : 0);
    text.sub(piece.origin, piece.origin + own).restore(workspace.piece);
    if (piece.space_added) workspace.piece.insert(0, 1, ' ');
    model_.encode(workspace.piece, workspace.model, out);
  };
  pre_tokenizer_.split(text.text, workspace.regex, encode_piece);
}

std::string BpeTokenizer::decode(std::span<const TokenId> ids) const {
  std::string bytes;
  for (const TokenId id : ids) {
    if (id < 0 || id >= vocab_size() || !token_present_[static_cast<size_t>(id)])
      fail<Error>("[tokenizer] id {} is not in the vocabulary of {} tokens", id, vocab_size());
    bytes += token_bytes_[static_cast<size_t>(id)];
  }
  return bytes;
}

std::optional<TokenId> BpeTokenizer::token_to_id(std::string_view token) const {
  const auto found = id_of_.find(token);
  if (found == id_of_.end()) return std::nullopt;
  return found->second;
}

}  // namespace lh
