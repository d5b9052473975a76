#include "launch/message.h"

#include <algorithm>
#include <charconv>

namespace lh {
namespace {

constexpr std::string_view kMagic = "LHL1";  // the digit is the protocol's version
constexpr size_t kHeader = 8;
constexpr size_t kLongestBody = 1 << 20;

std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c == '\n')
      result += "\\n";
    else if (c == '\\')
      result += "\\\\";
    else
      result += c;
  }
  return result;
}

std::string unescaped(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 1 < text.size())
      result += text[++i] == 'n' ? '\n' : text[i];
    else
      result += text[i];
  }
  return result;
}

Message decode(std::string_view body) {
  Message message;
  bool first = true;
  while (!body.empty()) {
    const size_t end = body.find('\n');
    if (end == std::string_view::npos) throw ProtocolError("a message without its last line end");
    const std::string_view line = body.substr(0, end);
    body.remove_prefix(end + 1);
    const size_t equals = line.find('=');
    if (first)
      message.kind = unescaped(line);
    else if (equals == std::string_view::npos)
      throw ProtocolError("a field without a value");
    else
      message.fields[std::string(line.substr(0, equals))] = unescaped(line.substr(equals + 1));
    first = false;
  }
  if (message.kind.empty()) throw ProtocolError("a message without a kind");
  return message;
}

}  // namespace

Message& Message::with(const std::string& name, std::string value) {
  fields[name] = std::move(value);
  return *this;
}

Message& Message::with(const std::string& name, int64_t value) {
  return with(name, std::to_string(value));
}

Message& Message::with(const std::string& name, double value) {
  return with(name, fmt::format("{}", value));
}

std::string Message::short_text(const std::string& name, size_t longest) const {
  const std::string& value = text(name);
  return value.size() <= longest ? value : value.substr(0, longest) + " ...";
}

const std::string& Message::text(const std::string& name) const {
  const auto found = fields.find(name);
  if (found == fields.end()) fail<ProtocolError>("message '{}' lacks '{}'", kind, name);
  return found->second;
}

int64_t Message::number(const std::string& name, int64_t low, int64_t high) const {
  const std::string& value = text(name);
  int64_t result = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), result);
  if (error != std::errc{} || end != value.data() + value.size() || result < low || result > high)
    fail<ProtocolError>("message '{}': {} = '{}' is not a number from {} to {}", kind, name, value,
                        low, high);
  return result;
}

double Message::seconds(const std::string& name) const {
  const std::string& value = text(name);
  double result = -1;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), result);
  if (error != std::errc{} || end != value.data() + value.size() || !(result >= 0 && result <= 1e6))
    fail<ProtocolError>("message '{}': {} = '{}' is not a time", kind, name, value);
  return result;
}

std::string encode(const Message& message) {
  std::string body = escaped(message.kind) + "\n";
  for (const auto& [name, value] : message.fields) body += name + "=" + escaped(value) + "\n";
  LH_CHECK(body.size() <= kLongestBody, "[launch] a message of {} bytes", body.size());
  std::string frame(kMagic);
  for (int shift = 24; shift >= 0; shift -= 8)
    frame += static_cast<char>(body.size() >> shift & 0xff);
  return frame + body;
}

std::optional<Message> FrameReader::next() {
  const size_t seen = std::min(buffer_.size(), kMagic.size());
  if (buffer_.compare(0, seen, kMagic, 0, seen) != 0)
    throw ProtocolError("bytes that are not a message between launchers");
  if (buffer_.size() < kHeader) return std::nullopt;
  size_t length = 0;
  for (size_t i = kMagic.size(); i < kHeader; ++i)
    length = length << 8 | static_cast<unsigned char>(buffer_[i]);
  if (length > kLongestBody) fail<ProtocolError>("a message of {} bytes", length);
  if (buffer_.size() < kHeader + length) return std::nullopt;
  Message message = decode(std::string_view(buffer_).substr(kHeader, length));
  buffer_.erase(0, kHeader + length);
  return message;
}

}  // namespace lh
