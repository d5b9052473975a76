// Content digests (XXH3, 128 bits) as 32 hex digits: for integrity and identity of files and
// tensors, not for security.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace lh {

/// Streaming digest; feeding the same bytes in any split gives the same hex string.
class Digest {
 public:
  Digest();
  ~Digest();
  Digest(const Digest&) = delete;
  Digest& operator=(const Digest&) = delete;

  void update(const void* data, size_t bytes);
  std::string hex() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string digest_of(std::string_view bytes);

}  // namespace lh
