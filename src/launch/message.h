// What launchers say to each other: a kind and named fields, framed on a byte stream as
//   "LHL1", length of the body (4 bytes, big-endian), body.
// The body is text, "kind\nname=value\n...", with \\ and \n escaped: readable in a packet dump.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"

namespace lh {

/// Bytes that are not this protocol, or a message that lacks what its kind needs.
class ProtocolError : public Error {
 public:
  using Error::Error;
};

struct Message {
  std::string kind;
  std::map<std::string, std::string> fields;

  Message() = default;
  explicit Message(std::string kind_name) : kind(std::move(kind_name)) {}
  Message& with(const std::string& name, std::string value);
  Message& with(const std::string& name, int64_t value);
  Message& with(const std::string& name, double value);

  /// A field; ProtocolError when it is missing, not a number or out of range.
  const std::string& text(const std::string& name) const;
  /// A text that is passed on, cut so that it can be.
  std::string short_text(const std::string& name, size_t longest = 256) const;
  int64_t number(const std::string& name, int64_t low = INT64_MIN, int64_t high = INT64_MAX) const;
  double seconds(const std::string& name) const;  // 0 <= value <= 1e6
};

std::string encode(const Message& message);

/// Cuts a byte stream into messages, however the bytes arrive.
class FrameReader {
 public:
  void feed(std::string_view bytes) { buffer_.append(bytes); }
  /// The next whole message, if any. ProtocolError on bytes that can't be one; then give up the
  /// stream.
  std::optional<Message> next();

 private:
  std::string buffer_;
};

}  // namespace lh
