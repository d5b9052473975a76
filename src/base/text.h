// Text for people: sizes, durations, counts, and the nearest known word to a misspelt one.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace lh {

std::string format_bytes(double bytes);      // "1.50 GiB"
std::string format_count(double count);      // "29.9M"
std::string format_duration(double seconds);  // "3m 12s"

/// " (did you mean 'x'?)" for the candidate within edit distance max(2, |word|/3); else "".
std::string did_you_mean(std::string_view word, std::span<const std::string> candidates);

}  // namespace lh
