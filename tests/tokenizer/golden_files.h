// Where the tokenizer goldens are, and the digest they store for long results. The files come from
// scripts/make_tokenizer_goldens.py.
#pragma once

#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "tokenizer/tokenizer.h"

namespace lh::testing {

inline const std::vector<std::string>& golden_tokenizers() {
  static const std::vector<std::string> kNames = {"gpt2", "llama3", "qwen2", "digits", "prefix"};
  return kNames;
}

inline std::filesystem::path golden_path(std::string_view file) {
  return std::filesystem::path(LH_SOURCE_DIR) / "tests/golden/tokenizer" / file;
}

inline std::unique_ptr<Tokenizer> golden_tokenizer(std::string_view name) {
  return load_tokenizer(golden_path(std::string(name) + ".json"));
}

inline std::vector<TokenId> ids_of(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<TokenId> ids;
  tokenizer.encode(text, ids);
  return ids;
}

/// "<count>:<FNV-1a 64 of the ids as little-endian int32>".
inline std::string ids_digest(const std::vector<TokenId>& ids) {
  uint64_t hash = 0xCBF29CE484222325ull;
  for (const TokenId id : ids)
    for (int shift = 0; shift < 32; shift += 8)
      hash = (hash ^ (static_cast<uint32_t>(id) >> shift & 0xFF)) * 0x100000001B3ull;
  return fmt::format("{}:{:016x}", ids.size(), hash);
}

}  // namespace lh::testing
