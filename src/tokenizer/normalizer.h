// Unicode normalisation form C (UAX #15), which the tokenizers of the Qwen family apply first.
#pragma once

#include <string>
#include <string_view>

namespace lh {

/// NFC of well-formed UTF-8. Returns `text` itself where nothing can change (no copy), else a
/// view of `buffer`. Time is n log n at worst, also for long runs of combining marks. The data
/// are those of Unicode 9, as in the HF tokenizers library: later characters are left alone.
std::string_view normalize_nfc(std::string_view text, std::string& buffer);

}  // namespace lh
