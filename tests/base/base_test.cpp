// Checks of src/base: text helpers, digests, Philox, atomic files.
#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/math.h"
#include "base/philox.h"
#include "base/text.h"

namespace {

TEST_CASE("a running maximum keeps the NaN it meets, wherever it stands") {
  const auto of = [](std::initializer_list<double> errors) {
    double largest = 0;
    for (const double error : errors) largest = lh::larger_or_nan(largest, error);
    return largest;
  };
  CHECK(of({1, 3, 2}) == 3);
  CHECK(std::isnan(of({NAN, 1, 2})));
  CHECK(std::isnan(of({1, NAN, 2})));
  CHECK(std::isnan(of({1, 2, NAN})));
}

TEST_CASE("philox matches the published known-answer vectors") {
  // From Random123's kat_vectors, philox4x32 with 10 rounds.
  const lh::PhiloxBlock zero = lh::philox4x32({0, 0, 0, 0}, 0);
  CHECK(zero == lh::PhiloxBlock{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  const lh::PhiloxBlock ones =
      lh::philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, 0xffffffffffffffffull);
  CHECK(ones == lh::PhiloxBlock{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
}

TEST_CASE("philox below is unbiased over a small range") {
  lh::Philox random(7);
  std::vector<int> counts(6);
  for (int i = 0; i < 60000; ++i) ++counts[random.below(6)];
  for (const int count : counts) CHECK(std::abs(count - 10000) < 500);
}

TEST_CASE("digest does not depend on how the bytes are split") {
  lh::Digest split;
  split.update("long", 4);
  split.update("hand", 4);
  CHECK(split.hex() == lh::digest_of("longhand"));
  CHECK(lh::digest_of("longhand") != lh::digest_of("longhanD"));
}

TEST_CASE("did_you_mean finds a near word and stays silent for a far one") {
  const std::vector<std::string> words = {"warmup_steps", "learning_rate"};
  CHECK(lh::did_you_mean("warmup_step", words) == " (did you mean 'warmup_steps'?)");
  CHECK(lh::did_you_mean("zzz", words).empty());
}

TEST_CASE("an exception while writing leaves the earlier file and no temporary") {
  namespace fs = std::filesystem;
  const fs::path folder = fs::temp_directory_path() / "lh_atomic_test";
  fs::remove_all(folder);
  fs::create_directories(folder);
  lh::write_file_atomically(folder / "a", "first");
  CHECK_THROWS(lh::write_atomically(folder / "a", [](const fs::path& temporary) {
    lh::write_file_atomically(temporary, "half");
    throw lh::IoError("disk full");
  }));
  CHECK(lh::read_file(folder / "a") == "first");
  CHECK(std::distance(fs::directory_iterator(folder), fs::directory_iterator{}) == 1);
  CHECK_THROWS_AS(lh::read_file(folder / "missing"), lh::IoError);
  fs::remove_all(folder);
}

}  // namespace
