// libFuzzer target: any bytes as a tokenizer.json load or throw lh::Error; what loads encodes a
// short text, or says why it can't (a split pattern may run into its limit).
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "tokenizer/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const auto tokenizer = lh::parse_tokenizer({reinterpret_cast<const char*>(data), size}, "fuzz");
    std::vector<lh::TokenId> ids;
    tokenizer->encode("It's 123 caf\u00e9s,\r\n\t\xff <|endoftext|> x", ids);
    tokenizer->encode_with_special("<|endoftext|>e\u0301 \xe2\x82", ids);
    (void)tokenizer->decode(ids);
    (void)tokenizer->save_json();
  } catch (const lh::Error&) {
  }
  return 0;
}
