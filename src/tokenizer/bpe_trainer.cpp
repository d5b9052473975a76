#include "tokenizer/bpe_trainer.h"

#include <algorithm>
#include <atomic>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>
#include <unordered_map>

#include "base/error.h"
#include "tokenizer/byte_level.h"
#include "tokenizer/merge_learner.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/utf8.h"
#include "tokenizer/word_cache.h"

namespace lh {
namespace {

// Enough text per thread that starting threads costs nothing, little enough to hold in memory.
constexpr size_t kBatchBytesPerThread = 8 << 20;

struct WordHash {
  using is_transparent = void;
  size_t operator()(std::string_view word) const { return hash_bytes(word); }
};
using Counts = std::unordered_map<std::string, int64_t, WordHash, std::equal_to<>>;

using Json = nlohmann::json;

Json byte_level(bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

Json pre_tokenizer_json(std::string_view pattern) {
  if (pattern == "gpt2") return byte_level(true);
  const Json split = {{"type", "Split"},
                      {"pattern", {{"Regex", std::string(named_pattern(pattern))}}},
                      {"behavior", "Isolated"},
                      {"invert", false}};
  return {{"type", "Sequence"}, {"pretokenizers", {split, byte_level(false)}}};
}

/// The tokenizer.json of a vocabulary learned with these options.
std::string tokenizer_json(const LearnedVocabulary& learned, const BpeTrainOptions& options) {
  const size_t specials = options.special_tokens.size();
  std::vector<std::string> names;
  for (size_t id = 0; id < learned.tokens.size(); ++id)
    names.push_back(id < specials ? learned.tokens[id] : bytes_to_alphabet(learned.tokens[id]));
  Json vocab = Json::object(), merges = Json::array(), added = Json::array();
  for (size_t id = 0; id < names.size(); ++id) vocab[names[id]] = id;
  for (const auto& [left, right] : learned.merges)
    merges.push_back(names[static_cast<size_t>(left)] + " " + names[static_cast<size_t>(right)]);
  for (size_t id = 0; id < specials; ++id)
    added.push_back({{"id", id},
                     {"content", names[id]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  const Json document = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", added},
      {"normalizer", options.normalize_nfc ? Json{{"type", "NFC"}} : Json(nullptr)},
      {"pre_tokenizer", pre_tokenizer_json(options.pattern)},
      {"post_processor", nullptr},
      {"decoder", byte_level(true)},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", nullptr},
        {"continuing_subword_prefix", nullptr},
        {"end_of_word_suffix", nullptr},
        {"fuse_unk", false},
        {"byte_fallback", false},
        {"ignore_merges", false},
        {"vocab", vocab},
        {"merges", merges}}}};
  return document.dump(1);
}

}  // namespace

struct BpeTrainer::State {
  BpeTrainOptions options;
  PreTokenizer pre_tokenizer;
  Counts counts;
  std::vector<std::string> waiting;
  size_t waiting_bytes = 0;

  explicit State(BpeTrainOptions given)
      : options(std::move(given)), pre_tokenizer(steps(options.pattern)) {}

  static std::vector<PreTokenizer::Step> steps(std::string_view pattern) {
    std::vector<PreTokenizer::Step> steps(1);
    steps[0].kind = PreTokenizer::Step::Kind::kSplit;
    steps[0].regex.emplace_back(named_pattern(pattern), Regex::Syntax::kPattern, pattern);
    return steps;
  }

  void count_document(std::string_view text, Regex::Workspace& workspace, Counts& into) const;
  void count_waiting();
};

/// Ill-formed bytes end a stretch and are left out: no merge is learned from noise. Encoding falls
/// back on single bytes there.
void BpeTrainer::State::count_document(std::string_view text, Regex::Workspace& workspace,
                                       Counts& into) const {
  const PreTokenizer::Sink count = [&](const PreTokenizer::Piece& piece) {
    const auto known = into.find(piece.text);
    if (known != into.end()) {
      ++known->second;
    } else {
      into.emplace(piece.text, 1);
    }
  };
  std::string buffer;
  while (!text.empty()) {
    const std::string_view valid = text.substr(0, valid_utf8_prefix(text));
    pre_tokenizer.split(options.normalize_nfc ? normalize_nfc(valid, buffer) : valid, workspace,
                        count);
    text.remove_prefix(valid.size());
    if (!text.empty()) text.remove_prefix(invalid_utf8_length(text));
  }
}

void BpeTrainer::State::count_waiting() {
  const size_t threads = std::clamp<size_t>(static_cast<size_t>(options.threads), 1,
                                            std::max<size_t>(1, waiting.size()));
  std::vector<Counts> found(threads);
  std::atomic<size_t> next{0};
  std::vector<std::exception_ptr> errors(threads);
  const auto work = [&](size_t thread) {
    try {
      Regex::Workspace workspace;
      for (size_t i = next++; i < waiting.size(); i = next++)
        count_document(waiting[i], workspace, thread == 0 ? counts : found[thread]);
    } catch (...) {
      errors[thread] = std::current_exception();
    }
  };
  std::vector<std::thread> helpers;
  for (size_t thread = 1; thread < threads; ++thread) helpers.emplace_back(work, thread);
  work(0);
  for (std::thread& helper : helpers) helper.join();
  waiting.clear();
  waiting_bytes = 0;
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
  for (size_t thread = 1; thread < threads; ++thread)
    for (auto& [word, count] : found[thread]) counts[word] += count;
}

BpeTrainer::BpeTrainer(BpeTrainOptions options) {
  if (options.threads <= 0)
    options.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  const auto smallest = static_cast<int64_t>(256 + options.special_tokens.size());
  if (options.vocab_size < smallest || options.vocab_size > INT32_MAX)
    fail<ConfigError>("vocab_size {} must be at least {} (256 bytes and {} special tokens)",
                      options.vocab_size, smallest, options.special_tokens.size());
  std::set<std::string> seen;
  for (const std::string& token : options.special_tokens) {
    if (token.empty() || valid_utf8_prefix(token) != token.size())
      fail<ConfigError>("a special token is empty or not UTF-8");
    if (!seen.insert(token).second) fail<ConfigError>("special token '{}' is given twice", token);
    if (const auto bytes = alphabet_to_bytes(token); bytes && bytes->size() == 1)
      fail<ConfigError>("special token '{}' is a character of the byte alphabet", token);
  }
  state_ = std::make_unique<State>(std::move(options));
}

BpeTrainer::~BpeTrainer() = default;

void BpeTrainer::add_text(std::string_view text) {
  state_->waiting.emplace_back(text);
  state_->waiting_bytes += text.size();
  if (state_->waiting_bytes >= kBatchBytesPerThread * static_cast<size_t>(state_->options.threads))
    state_->count_waiting();
}

std::unique_ptr<Tokenizer> BpeTrainer::train(const Progress& progress) {
  state_->count_waiting();
  std::vector<WordCount> words;
  words.reserve(state_->counts.size());
  for (const auto& [word, count] : state_->counts) words.push_back({word, count});
  const BpeTrainOptions& options = state_->options;
  const LearnedVocabulary learned = learn_merges(
      words, {options.vocab_size, options.min_frequency, options.special_tokens}, progress);
  return parse_tokenizer(tokenizer_json(learned, options), "the trained tokenizer");
}

}  // namespace lh
