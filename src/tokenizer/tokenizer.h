// Text to token ids and back: the interface, the raw-byte tokenizer, loading of the standard
// tokenizer.json, and decoding of a stream of ids. Byte-level BPE is trained in bpe_trainer.h.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lh {

using TokenId = int32_t;

/// All methods are safe to call from several threads at once.
///
/// Text is any byte string. Ill-formed UTF-8 is kept: each ill-formed sequence takes part in
/// splitting as if it were U+FFFD (which is what other tools see after decoding with
/// errors="replace"), and the piece that holds it is then encoded from its own bytes. So pieces
/// without ill-formed bytes encode as they do elsewhere, and decode(encode(x)) == x for every x,
/// unless the file asks for a change of the text: NFC normalisation, or a space put in front.
class Tokenizer {
 public:
  virtual ~Tokenizer();

  /// One more than the largest id.
  virtual int64_t vocab_size() const = 0;

  /// Appends the ids of `text` to `out`. Adds no begin or end token. Special tokens written in
  /// the text are ordinary text here, so a document can't forge one.
  virtual void encode(std::string_view text, std::vector<TokenId>& out) const = 0;

  /// Like encode, but special tokens written in the text become their ids.
  virtual void encode_with_special(std::string_view text, std::vector<TokenId>& out) const = 0;

  /// The bytes of the ids; they may begin or end inside a UTF-8 sequence. A special token gives
  /// its own text. Throws Error for an id outside the vocabulary.
  virtual std::string decode(std::span<const TokenId> ids) const = 0;

  /// The id that ends a document; nullopt when the file names none.
  virtual std::optional<TokenId> end_of_text() const = 0;

  /// The id that the file's post-processor puts in front of a document; nullopt when none.
  virtual std::optional<TokenId> begin_of_text() const { return std::nullopt; }

  /// The id of a token by its text (a special token's own text); nullopt when there is none.
  virtual std::optional<TokenId> token_to_id(std::string_view token) const = 0;

  /// The text of a tokenizer.json from which load_tokenizer makes an equal tokenizer. The same
  /// for two files that differ only in layout or key order.
  virtual std::string save_json() const = 0;

  /// digest_of(save_json()): names the tokenizer in shards and checkpoints.
  std::string digest() const;
};

/// Ids 0..255 are the bytes, 256 ends a document. Saved as {"model": {"type": "Bytes"}}, which
/// only this project reads.
std::unique_ptr<Tokenizer> make_byte_tokenizer();

/// For symbols of synthetic tasks: ids 0..size-2 are written as decimal numbers with a blank behind
/// each, size-1 ends a document; size 2 to 2^30. Text is numbers with blanks between them, ConfigError
/// for other; blanks and leading zeros are not kept. Saved as {"model": {"type": "Integers"}}.
std::unique_ptr<Tokenizer> make_integer_tokenizer(int64_t size);

/// Reads a tokenizer.json. IoError names the file, the key, what is there and what is supported.
std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& tokenizer_json);
std::unique_ptr<Tokenizer> parse_tokenizer(std::string_view json, std::string_view name_for_errors);

/// Decodes ids as they are generated. What push returns never ends inside a character; the
/// pieces joined, with finish() last, are exactly decode() of all the ids.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  std::string push(TokenId id);
  /// What was held back, complete or not; the decoder is then ready for a new stream.
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  std::string held_;
};

}  // namespace lh
