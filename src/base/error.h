// Error types and check macros of the whole library. Nothing in src/ calls exit() or abort():
// an error is thrown, and tools/longhand.cpp turns its type into an exit code.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace lh {

/// Base of all errors this project throws. what() is the full message for the user.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A recipe, option or command line is wrong (exit code 2).
class ConfigError : public Error {
 public:
  using Error::Error;
};

/// Shapes, dtypes or devices of tensors do not fit an operation.
class ShapeError : public Error {
 public:
  using Error::Error;
};

/// A file is missing, unreadable, malformed, truncated or can't be written.
class IoError : public Error {
 public:
  using Error::Error;
};

/// A loss or gradient is NaN or infinite; training stopped before the update.
class NonFiniteError : public Error {
 public:
  using Error::Error;
};

namespace detail {
[[noreturn]] void check_failed(const char* file, int line, const char* condition,
                               const std::string& message);
}  // namespace detail

/// Throws E with an fmt-formatted message: fail<IoError>("cannot open {}: {}", path, reason).
template <typename E = Error, typename... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw E(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace lh

/// Internal invariant or API precondition. The message follows "[op] expected X, got Y".
#define LH_CHECK(condition, ...)                                                     \
  do {                                                                               \
    if (!(condition)) [[unlikely]]                                                   \
      ::lh::detail::check_failed(__FILE__, __LINE__, #condition, fmt::format(__VA_ARGS__)); \
  } while (false)

/// Like LH_CHECK for two comparable values; prints both.
#define LH_CHECK_EQ(a, b, ...)                                                          \
  do {                                                                                  \
    const auto& lh_a_ = (a);                                                            \
    const auto& lh_b_ = (b);                                                            \
    if (!(lh_a_ == lh_b_)) [[unlikely]]                                                 \
      ::lh::detail::check_failed(__FILE__, __LINE__, #a " == " #b,                      \
                                 fmt::format("{} ({} vs {})", fmt::format(__VA_ARGS__), \
                                             lh_a_, lh_b_));                            \
  } while (false)
