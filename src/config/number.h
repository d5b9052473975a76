// Numbers as recipes write them: plain decimals and scientific notation, nothing else.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace lh {

/// Reads "12", "-3", "1e6" or "2.5e3" exactly. On failure returns false and says in `why` what
/// was expected and what is wrong with the text.
bool parse_integer(std::string_view text, int64_t& value, std::string& why);

/// Reads a finite number. NaN, infinities and numbers beyond a double's range are refused.
bool parse_real(std::string_view text, double& value, std::string& why);

/// The shortest text that parse_real reads back as the same number.
std::string format_real(double value);

}  // namespace lh
