// Reads the standard tokenizer.json. Everything that would change an encoding is either obeyed or
// refused with an error that names it; nothing is silently ignored.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "tokenizer/bpe_tokenizer.h"
#include "tokenizer/byte_level.h"

namespace lh {
namespace {

using Json = nlohmann::json;

/// A value of the file with the path of keys that leads to it, for messages.
class Field {
 public:
  Field(const Json& json, std::string_view file, std::string path)
      : json_(json), file_(file), path_(std::move(path)) {}

  template <typename... Args>
  [[noreturn]] void reject(fmt::format_string<Args...> format, Args&&... args) const {
    throw IoError(fmt::format("{}: {}: {}", file_, path_.empty() ? "top level" : path_,
                              fmt::format(format, std::forward<Args>(args)...)));
  }

  /// The member, or a null field when it is absent.
  Field at(const char* key) const {
    static const Json kNull;
    if (!json_.is_object()) reject("expected an object, got {}", json_.type_name());
    const auto found = json_.find(key);
    return {found == json_.end() ? kNull : *found, file_,
            path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key)};
  }

  Field member(const std::string& key, const Json& value) const {
    return {value, file_, fmt::format("{}: {}", path_, Json(key).dump())};
  }

  Field item(size_t i) const { return {json_[i], file_, fmt::format("{}[{}]", path_, i)}; }

  std::vector<Field> items() const {
    if (!json_.is_array()) reject("expected a list, got {}", json_.type_name());
    std::vector<Field> fields;
    for (size_t i = 0; i < json_.size(); ++i) fields.push_back(item(i));
    return fields;
  }

  bool null() const { return json_.is_null(); }

  const std::string& text() const {
    if (!json_.is_string()) reject("expected a string, got {}", json_.type_name());
    return json_.get_ref<const std::string&>();
  }

  bool flag(bool fallback) const {
    if (null()) return fallback;
    if (!json_.is_boolean()) reject("expected true or false, got {}", json_.type_name());
    return json_.get<bool>();
  }

  int32_t id() const {
    if (!json_.is_number_unsigned() || json_.get<uint64_t>() > uint64_t{INT32_MAX})
      reject("expected a token id (0 to 2147483647), got {}", brief());
    return static_cast<int32_t>(json_.get<uint64_t>());
  }

  /// The value as JSON, cut to a length that fits a message.
  std::string brief() const {
    std::string dumped = json_.dump();
    if (dumped.size() > 60) dumped = dumped.substr(0, 60) + "...";
    return dumped;
  }

  const Json& json() const { return json_; }
  const std::string& path() const { return path_; }
  std::string where() const { return fmt::format("{}: {}", file_, path_); }

 private:
  const Json& json_;
  std::string_view file_;
  std::string path_;
};

/// The vocabulary while it is read: both directions, ids checked for clashes.
class Vocabulary {
 public:
  struct Entry {
    std::string token;
    bool in_model;  // model.vocab holds it, not only added_tokens
  };

  void add(const std::string& token, int32_t id, bool in_model, const Field& at) {
    const auto [known, fresh] = id_of_.emplace(token, id);
    if (!fresh && known->second != id)
      at.reject("token {} has the ids {} and {}", quoted(token), known->second, id);
    const auto [holder, free] = by_id_.emplace(id, Entry{token, in_model});
    if (!free && holder->second.token != token)
      at.reject("id {} belongs to {} and to {}", id, quoted(holder->second.token), quoted(token));
    max_id_ = std::max(max_id_, id);
  }

  std::optional<int32_t> find(const std::string& token) const {
    const auto found = id_of_.find(token);
    if (found == id_of_.end()) return std::nullopt;
    return found->second;
  }

  const std::unordered_map<int32_t, Entry>& by_id() const { return by_id_; }
  size_t size() const { return by_id_.size(); }
  int32_t max_id() const { return max_id_; }

  static std::string quoted(const std::string& token) { return Json(token).dump(); }

 private:
  std::unordered_map<std::string, int32_t> id_of_;
  std::unordered_map<int32_t, Entry> by_id_;
  int32_t max_id_ = -1;
};

void read_vocab(const Field& vocab, Vocabulary& out) {
  if (!vocab.json().is_object())
    vocab.reject("expected an object of token: id, got {}", vocab.json().type_name());
  for (const auto& [token, id] : vocab.json().items()) {
    // Large vocabularies: the field, which formats its path, is made only to complain.
    const bool fits = id.is_number_unsigned() && id.get<uint64_t>() <= uint64_t{INT32_MAX};
    out.add(token, fits ? id.get<int32_t>() : vocab.member(token, id).id(), true, vocab);
  }
}

std::vector<AddedToken> read_added_tokens(const Field& list, Vocabulary& vocabulary) {
  std::vector<AddedToken> tokens;
  if (list.null()) return tokens;
  for (const Field& item : list.items()) {
    AddedToken token;
    token.id = item.at("id").id();
    token.content = item.at("content").text();
    if (token.content.empty()) item.reject("the content is empty");
    token.special = item.at("special").flag(false);
    token.normalized = item.at("normalized").flag(!token.special);
    token.strip_left = item.at("lstrip").flag(false);
    token.strip_right = item.at("rstrip").flag(false);
    if (item.at("single_word").flag(false))
      item.reject("single_word = true is not supported (supported: false)");
    vocabulary.add(token.content, token.id, false, item);
    const auto twice = [&](const AddedToken& other) { return other.id == token.id; };
    if (std::none_of(tokens.begin(), tokens.end(), twice)) tokens.push_back(std::move(token));
  }
  return tokens;
}

std::vector<BpeMerge> read_merges(const Field& list, const Vocabulary& vocabulary) {
  if (!list.json().is_array())
    list.reject("expected a list of merges, got {}", list.json().type_name());
  std::vector<BpeMerge> merges;
  merges.reserve(list.json().size());
  for (size_t i = 0; i < list.json().size(); ++i) {
    const Json& json = list.json()[i];
    const auto reject = [&](const std::string& reason) { list.item(i).reject("{}", reason); };
    std::string left, right;
    if (json.is_string()) {
      const auto& line = json.get_ref<const std::string&>();
      const size_t space = line.find(' ');
      if (space == line.npos || line.find(' ', space + 1) != line.npos)
        reject("expected \"left right\", got " + Vocabulary::quoted(line));
      left = line.substr(0, space);
      right = line.substr(space + 1);
    } else if (json.is_array() && json.size() == 2 && json[0].is_string() && json[1].is_string()) {
      left = json[0].get<std::string>();
      right = json[1].get<std::string>();
    } else {
      reject("expected \"left right\" or [\"left\", \"right\"]");
    }
    const auto known = [&](const std::string& token) {
      const auto id = vocabulary.find(token);
      if (!id) reject(Vocabulary::quoted(token) + " is not in model.vocab");
      return *id;
    };
    if (left.empty() || right.empty()) reject("one side of the merge is empty");
    const int32_t left_id = known(left), right_id = known(right);
    merges.push_back({left_id, right_id, known(left + right)});
  }
  return merges;
}

/// model.*: refuses every option that would change the encoding in a way not implemented.
BpeModel::Parts read_model(const Field& model, Vocabulary& vocabulary) {
  const Field type = model.at("type");
  // Files from before the key existed are BPE if they have merges.
  const std::string name = type.null() && !model.at("merges").null() ? "BPE"
                           : type.null()                             ? "(none)"
                                                                     : type.text();
  if (name != "BPE") type.reject("model type '{}' is not supported (supported: BPE)", name);
  if (model.at("byte_fallback").flag(false))
    model.at("byte_fallback")
        .reject(
            "true (a SentencePiece-style BPE) is not supported (supported: byte-level BPE, "
            "byte_fallback = false)");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const Field affix = model.at(key);
    if (!affix.null() && !affix.text().empty())
      affix.reject("{} is not supported (supported: null)", affix.brief());
  }
  const Field dropout = model.at("dropout");
  if (!dropout.null() && !(dropout.json().is_number() && dropout.json().get<double>() == 0))
    dropout.reject("{} is not supported (supported: null)", dropout.brief());

  read_vocab(model.at("vocab"), vocabulary);
  BpeModel::Parts parts;
  parts.merges = read_merges(model.at("merges"), vocabulary);
  if (!model.at("unk_token").null()) {
    const auto unknown = vocabulary.find(model.at("unk_token").text());
    if (unknown) parts.unknown_id = *unknown;
  }
  parts.fuse_unknown = model.at("fuse_unk").flag(false);
  return parts;
}

/// null, NFC, or a Sequence of these. True when NFC is asked for.
bool read_normalizer(const Field& normalizer, int depth = 0) {
  if (normalizer.null()) return false;
  const std::string& type = normalizer.at("type").text();
  if (type == "NFC") return true;
  if (type != "Sequence" || depth > 8)
    normalizer.reject("normalizer '{}' is not supported (supported: null, NFC)", type);
  bool nfc = false;
  for (const Field& item : normalizer.at("normalizers").items())
    nfc = read_normalizer(item, depth + 1) || nfc;
  return nfc;
}

using Step = PreTokenizer::Step;

Step regex_step(Step::Kind kind, std::string_view pattern, Regex::Syntax syntax,
                std::string_view where) {
  Step step{kind, {}};
  step.regex.emplace_back(pattern, syntax, where);
  return step;
}

Step read_split(const Field& split) {
  const Field behavior = split.at("behavior");
  const bool invert = split.at("invert").flag(false);
  Step::Kind kind = Step::Kind::kSplit;  // Isolated keeps both sides, so invert changes nothing
  if (behavior.text() == "Removed" && invert) {
    kind = Step::Kind::kKeepMatches;
  } else if (behavior.text() != "Isolated") {
    behavior.reject(
        "'{}' (invert = {}) is not supported (supported: Isolated, and Removed with "
        "invert = true)",
        behavior.text(), invert);
  }
  const Field pattern = split.at("pattern");
  const bool literal = pattern.at("Regex").null();
  const Field source = pattern.at(literal ? "String" : "Regex");
  return regex_step(kind, source.text(),
                    literal ? Regex::Syntax::kLiteral : Regex::Syntax::kPattern, source.where());
}

/// Appends the steps; true once ByteLevel, which must come last, has been read.
bool read_pre_tokenizer(const Field& pre, std::vector<Step>& steps, int depth = 0) {
  const std::string& type = pre.at("type").text();
  if (steps.size() > PreTokenizer::kMaxSteps || depth > 8)
    pre.reject("more than {} pre-tokenizers", PreTokenizer::kMaxSteps);
  if (type == "Sequence") {
    bool byte_level = false;
    for (const Field& item : pre.at("pretokenizers").items()) {
      if (byte_level) item.reject("nothing may follow ByteLevel");
      byte_level = read_pre_tokenizer(item, steps, depth + 1);
    }
    return byte_level;
  }
  if (type == "Split") {
    steps.push_back(read_split(pre));
  } else if (type == "Digits") {
    // The library takes digits from a newer Unicode (17) than its patterns do.
    const std::string number = R"([\p{N}\x{11de0}-\x{11de9}\x{16ff4}-\x{16ff6}])";
    const bool single = pre.at("individual_digits").flag(false);
    steps.push_back(regex_step(Step::Kind::kSplit, single ? number : number + "+",
                               Regex::Syntax::kPattern, pre.where()));
  } else if (type == "ByteLevel") {
    if (pre.at("add_prefix_space").flag(true)) steps.push_back({Step::Kind::kPrefixSpace, {}});
    if (pre.at("use_regex").flag(true))
      steps.push_back(regex_step(Step::Kind::kSplit, named_pattern("gpt2"), Regex::Syntax::kPattern,
                                 pre.where()));
    return true;
  } else {
    pre.reject(
        "pre-tokenizer '{}' is not supported (supported: ByteLevel, Split, Digits, Sequence)",
        type);
  }
  return false;
}

void check_decoder(const Field& decoder, int depth = 0) {
  if (decoder.null()) return;  // ids are turned into bytes in any case
  const std::string& type = decoder.at("type").text();
  if (type == "Sequence" && depth <= 8) {
    for (const Field& item : decoder.at("decoders").items()) check_decoder(item, depth + 1);
  } else if (type != "ByteLevel") {
    decoder.reject("decoder '{}' is not supported (supported: ByteLevel)", type);
  }
}

/// The tokens that the post-processor puts around a single text.
struct Frame {
  std::optional<int32_t> before, after;
};

void read_post_processor(const Field& post, const Vocabulary& vocabulary, Frame& frame,
                         int depth = 0) {
  if (post.null()) return;
  const std::string& type = post.at("type").text();
  if (type == "ByteLevel") return;  // moves offsets only
  if (type == "Sequence" && depth <= 8) {
    for (const Field& item : post.at("processors").items())
      read_post_processor(item, vocabulary, frame, depth + 1);
    return;
  }
  if (type != "TemplateProcessing")
    post.reject("post-processor '{}' is not supported (supported: ByteLevel, TemplateProcessing)",
                type);
  bool seen_text = false;
  for (const Field& item : post.at("single").items()) {
    if (!item.at("Sequence").null()) {
      seen_text = true;
      continue;
    }
    const Field name = item.at("SpecialToken").at("id");
    const auto id = vocabulary.find(name.text());
    if (!id) name.reject("{} is not a token of this file", Vocabulary::quoted(name.text()));
    (seen_text ? frame.after : frame.before) = *id;
  }
}

/// The id that ends a document: what the template puts behind it, else the first special token
/// with a usual name, else the only special token. The format has no key for it.
std::optional<TokenId> find_end_of_text(const Frame& frame, const std::vector<AddedToken>& added) {
  if (frame.after) return frame.after;
  const AddedToken* only = nullptr;
  int specials = 0;
  for (const char* name : {"<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eos|>",
                           "<｜end▁of▁sentence｜>", "<|im_end|>"})
    for (const AddedToken& token : added)
      if (token.special && token.content == name) return token.id;
  for (const AddedToken& token : added)
    if (token.special && ++specials == 1) only = &token;
  return specials == 1 ? std::optional<TokenId>(only->id) : std::nullopt;
}

/// Fills the tables by id and by byte. Added tokens stand for their own text, the others for the
/// bytes that their characters mean.
void fill_tables(const Vocabulary& vocabulary, bool ignore_merges, std::string_view file,
                 BpeTokenizer::Parts& parts) {
  const auto size = static_cast<size_t>(vocabulary.max_id()) + 1;
  // A stray huge id would only allocate memory for nothing.
  if (size > vocabulary.size() * 2 + 65536)
    fail<IoError>("{}: the largest token id is {}, but there are only {} tokens", file,
                  vocabulary.max_id(), vocabulary.size());
  parts.token_bytes.resize(size);
  parts.token_present.resize(size);
  parts.model.byte_ids.fill(-1);
  std::vector<const AddedToken*> added_by_id(size);
  for (const AddedToken& token : parts.added) added_by_id[static_cast<size_t>(token.id)] = &token;
  for (const auto& [id, entry] : vocabulary.by_id()) {
    const std::string& token = entry.token;
    const auto index = static_cast<size_t>(id);
    parts.token_present[index] = true;
    const AddedToken* added = added_by_id[index];
    const auto bytes = alphabet_to_bytes(token);
    parts.token_bytes[index] = added != nullptr || !bytes ? token : *bytes;
    if (!bytes || !entry.in_model) continue;
    if (bytes->size() == 1) parts.model.byte_ids[static_cast<uint8_t>((*bytes)[0])] = id;
    // A special token must not come out of ordinary text.
    if (ignore_merges && added == nullptr) parts.model.whole_words.emplace(*bytes, id);
  }
  const auto missing = std::count(parts.model.byte_ids.begin(), parts.model.byte_ids.end(), -1);
  if (missing == 256)
    fail<IoError>(
        "{}: model.vocab holds no byte of the byte-level alphabet; only byte-level BPE is "
        "supported",
        file);
  if (missing > 0)
    log_debug("[tokenizer] {}: {} of 256 bytes are not in the vocabulary; text with them is {}",
              file, missing,
              parts.model.unknown_id < 0 ? "encoded without them" : "encoded with unk_token");
}

/// The JSON library parses any depth but writes and compares by recursion.
void check_depth(std::string_view text, std::string_view file) {
  constexpr int kMaxDepth = 64;
  int depth = 0;
  bool in_string = false;
  for (size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (in_string) {
      if (c == '\\') ++at;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kMaxDepth)
        fail<IoError>("{}: nested more than {} levels deep at byte {}", file, kMaxDepth, at);
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
}

Json parse_document(std::string_view text, std::string_view file) {
  check_depth(text, file);
  try {
    return Json::parse(text);
  } catch (const Json::exception& error) {
    fail<IoError>("{}: not valid JSON: {}", file, error.what());
  }
}

std::unique_ptr<Tokenizer> read_integers(const Json& document, const Field& model) {
  const int64_t size = model.at("size").id();
  if (size < 2 || size > int64_t{1} << 30)
    model.reject("model type 'Integers' expects a size from 2 to 2^30, got {}", size);
  auto integers = make_integer_tokenizer(size);
  if (document != Json::parse(integers->save_json()))
    model.reject("model type 'Integers' takes no other settings than those it is saved with");
  return integers;
}

}  // namespace

std::unique_ptr<Tokenizer> parse_tokenizer(std::string_view json,
                                           std::string_view name_for_errors) {
  const Json document = parse_document(json, name_for_errors);
  const Field top(document, name_for_errors, "");
  const Field model = top.at("model");
  if (model.null()) top.reject("no key 'model': this is not a tokenizer.json");
  if (const Field type = model.at("type"); !type.null() && type.text() == "Bytes") {
    auto bytes = make_byte_tokenizer();
    if (document != Json::parse(bytes->save_json()))
      model.reject("model type 'Bytes' takes no other settings than those it is saved with");
    return bytes;
  }
  if (const Field type = model.at("type"); !type.null() && type.text() == "Integers")
    return read_integers(document, model);

  BpeTokenizer::Parts parts;
  Vocabulary vocabulary;
  parts.model = read_model(model, vocabulary);
  parts.added = read_added_tokens(top.at("added_tokens"), vocabulary);
  parts.normalize_nfc = read_normalizer(top.at("normalizer"));
  const Field pre = top.at("pre_tokenizer");
  if (pre.null() || !read_pre_tokenizer(pre, parts.splits))
    pre.reject(
        "expected ByteLevel, or a Sequence that ends with it, got {} (only byte-level BPE is "
        "supported)",
        pre.brief());
  check_decoder(top.at("decoder"));
  Frame frame;
  read_post_processor(top.at("post_processor"), vocabulary, frame);
  parts.begin_of_text = frame.before;
  parts.end_of_text = find_end_of_text(frame, parts.added);
  fill_tables(vocabulary, model.at("ignore_merges").flag(false), name_for_errors, parts);
  parts.json = document.dump(1) + "\n";
  return std::make_unique<BpeTokenizer>(std::move(parts));
}

}  // namespace lh
