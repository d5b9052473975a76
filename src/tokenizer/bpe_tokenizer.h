// The byte-level BPE tokenizer: repair of ill-formed text, added tokens, normalisation, splitting
// and merging in the order of the standard tokenizer.json.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "tokenizer/added_tokens.h"
#include "tokenizer/bpe_model.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/tokenizer.h"

namespace lh {

class BpeTokenizer final : public Tokenizer {
 public:
  struct Parts {
    std::vector<std::string> token_bytes;  // by id
    std::vector<bool> token_present;       // false: a hole in the numbering
    BpeModel::Parts model;
    std::vector<AddedToken> added;
    std::vector<PreTokenizer::Step> splits;
    bool normalize_nfc = false;
    std::optional<TokenId> begin_of_text, end_of_text;
    std::string json;  // what save_json returns
  };

  explicit BpeTokenizer(Parts parts);
  ~BpeTokenizer() override;

  int64_t vocab_size() const override { return static_cast<int64_t>(token_bytes_.size()); }
  void encode(std::string_view text, std::vector<TokenId>& out) const override;
  void encode_with_special(std::string_view text, std::vector<TokenId>& out) const override;
  std::string decode(std::span<const TokenId> ids) const override;
  std::optional<TokenId> end_of_text() const override { return end_of_text_; }
  std::optional<TokenId> begin_of_text() const override { return begin_of_text_; }
  std::optional<TokenId> token_to_id(std::string_view token) const override;
  std::string save_json() const override { return json_; }

 private:
  struct Workspace;
  class Lease;
  struct RepairedText;
  /// The added tokens that take part in one kind of encoding, before and after normalisation.
  struct Finders {
    AddedTokenFinder raw, normalized;
  };

  void encode_text(std::string_view text, const Finders& finders, std::vector<TokenId>& out) const;
  void encode_raw(const RepairedText& text, const Finders& finders, Workspace& workspace,
                  std::vector<TokenId>& out) const;
  void encode_normalized(const RepairedText& text, const Finders& finders, Workspace& workspace,
                         std::vector<TokenId>& out) const;
  void encode_ordinary(const RepairedText& text, Workspace& workspace,
                       std::vector<TokenId>& out) const;

  std::vector<std::string> token_bytes_;
  std::vector<bool> token_present_;
  std::unordered_map<std::string_view, TokenId> id_of_;  // into token_bytes_
  BpeModel model_;
  PreTokenizer pre_tokenizer_;
  Finders ordinary_, with_special_;
  bool normalize_nfc_;
  std::optional<TokenId> begin_of_text_, end_of_text_;
  std::string json_;

  // Buffers and word caches that no thread uses now; one per thread that ever encoded at once.
  mutable std::mutex idle_mutex_;
  mutable std::vector<std::unique_ptr<Workspace>> idle_;
};

}  // namespace lh
