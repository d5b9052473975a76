// Token shards: what is written is read, and every kind of damage is an IoError with the file's
// name. HDF5 itself reads the arrays once, as the independent reference.
#include "data/token_shard.h"

#include <hdf5.h>
#include <sys/resource.h>

#include <doctest/doctest.h>
#include <csignal>
#include <thread>
#include <utility>

#include "base/philox.h"
#include "data/shard_seal.h"
#include "data_support.h"
#include "storage/hdf5_lock.h"

using namespace lh;
using namespace lh::test;

namespace {

std::vector<TokenId> read_all(const TokenShard& shard) {
  std::vector<TokenId> tokens(static_cast<size_t>(shard.info().tokens));
  shard.read_tokens(0, tokens);
  return tokens;
}

/// The arrays as the HDF5 library reads them.
template <typename T>
std::vector<T> read_with_hdf5(const std::filesystem::path& path, const char* name, hid_t type) {
  std::lock_guard lock(hdf5_mutex());
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  REQUIRE(file >= 0);
  const hid_t data = H5Dopen2(file, name, H5P_DEFAULT);
  REQUIRE(data >= 0);
  const hid_t space = H5Dget_space(data);
  std::vector<T> values(static_cast<size_t>(H5Sget_simple_extent_npoints(space)));
  CHECK(H5Dread(data, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) >= 0);
  H5Sclose(space);
  H5Dclose(data);
  H5Fclose(file);
  return values;
}

}  // namespace

TEST_CASE("a shard reads back as it was written") {
  const Folder folder;
  for (const int64_t vocab : {int64_t{65'536}, int64_t{65'537}}) {
    CAPTURE(vocab);
    const auto path = folder / "a.h5";
    const auto shard = counting_shard(path, {3, 1, 500, 2}, 7, vocab);
    const ShardInfo& info = shard->info();
    CHECK(info.token_width == (vocab == 65'536 ? 2 : 4));
    CHECK(info.documents == 4);
    CHECK(info.tokens == 506);
    CHECK(info.text_bytes == 1 + 4 + 7 + 10);
    CHECK(info.end_of_text == vocab - 1);
    CHECK(info.sources == std::vector<SourceFile>{{"made up", 10, "0123"}});
    CHECK(shard->tokenizer_json() == CountingTokenizer(vocab).save_json());
    CHECK(info.tokenizer_digest == CountingTokenizer(vocab).digest());
    CHECK(shard->document_offsets() == std::vector<int64_t>{0, 3, 4, 504, 506});
    CHECK(shard->document_bytes() == std::vector<int64_t>{1, 4, 7, 10});
    const std::vector<TokenId> tokens = read_all(*shard);
    for (const int64_t end : {2, 3, 503, 505}) CHECK(tokens[end] == vocab - 1);
    CHECK(tokens[0] == 7);
    CHECK(tokens[400] == 407);
    shard->verify();

    CHECK(read_with_hdf5<int32_t>(path, "tokens", H5T_NATIVE_INT32) == tokens);
    CHECK(read_with_hdf5<int64_t>(path, "document_offsets", H5T_NATIVE_INT64) ==
          shard->document_offsets());
    CHECK(read_with_hdf5<int64_t>(path, "document_bytes", H5T_NATIVE_INT64) ==
          shard->document_bytes());
  }
  CHECK(folder.names() == std::vector<std::string>{"a.h5"});
}

TEST_CASE("large arrays pass through the spools unchanged") {
  const Folder folder;
  std::vector<int64_t> lengths;
  for (int64_t d = 0; d < 100'000; ++d) lengths.push_back(1 + d % 7);
  const auto shard = counting_shard(folder / "a.h5", lengths, 0, 1'000'000);
  const std::vector<int64_t> offsets = shard->document_offsets();
  const std::vector<TokenId> tokens = read_all(*shard);
  int64_t begin = 0;
  bool equal = true;
  for (size_t d = 0; d < lengths.size(); ++d) {
    equal = equal && offsets[d] == begin;
    for (int64_t i = begin; i < begin + lengths[d] - 1; ++i) equal = equal && tokens[i] == i;
    begin += lengths[d];
    equal = equal && tokens[begin - 1] == 999'999;
  }
  CHECK(equal);
}

TEST_CASE("several threads read one shard") {
  const Folder folder;
  const auto shard = counting_shard(folder / "a.h5", {5000, 5000});
  const std::vector<TokenId> expected = read_all(*shard);
  std::atomic<int> bad{0};
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      Philox random(t);
      for (int i = 0; i < 500; ++i) {
        const int64_t begin = static_cast<int64_t>(random.below(9'000));
        std::vector<TokenId> part(1000);
        shard->read_tokens(begin, part);
        if (!std::equal(part.begin(), part.end(), expected.begin() + begin)) ++bad;
        if (i % 100 == 0) TokenShard::open(folder / "a.h5");
      }
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(bad == 0);
}

TEST_CASE("equal content has an equal digest wherever it comes from") {
  const Folder folder;
  const auto a = counting_shard(folder / "a.h5", {3, 4});
  const auto b = counting_shard(folder / "b.h5", {3, 4});
  CHECK(a->info().content_digest == b->info().content_digest);
  CHECK(counting_shard(folder / "c.h5", {4, 3})->info().content_digest != a->info().content_digest);
  CHECK(counting_shard(folder / "d.h5", {3, 4}, 1)->info().content_digest !=
        a->info().content_digest);
  CHECK(get(folder / "a.h5") == get(folder / "b.h5"));
}

TEST_CASE("every flipped bit is found") {
  const Folder folder;
  const auto path = folder / "a.h5";
  const int64_t vocab = 256;
  counting_shard(path, {20, 30, 9}, 0, vocab);
  const std::string good = get(path);
  const ShardSeal seal = check_seal(path);
  int64_t at_open = 0, by_verify = 0;
  for (size_t byte = 0; byte < good.size(); ++byte) {
    // In place: some file systems flush a file that is truncated and written anew.
    const auto put_byte = [&](int value) {
      std::fstream(path, std::ios::binary | std::ios::in | std::ios::out)
          .seekp(static_cast<std::streamoff>(byte))
          .put(static_cast<char>(value));
    };
    put_byte(good[byte] ^ (1 << byte % 8));
    const bool in_tokens = static_cast<int64_t>(byte) >= seal.tokens_begin &&
                           static_cast<int64_t>(byte) < seal.tokens_begin + seal.tokens_bytes;
    std::string opened = error_of<IoError>([&] { TokenShard::open(path); });
    if (in_tokens) {
      REQUIRE(opened.empty());
      opened = error_of<IoError>([&] { TokenShard::open(path)->verify(); });
      ++by_verify;
    } else {
      ++at_open;
    }
    INFO("byte ", byte, ": ", opened);
    REQUIRE(contains(opened, path.string()));
    put_byte(good[byte]);
  }
  CHECK(get(path) == good);
  CHECK(by_verify == 59 * 2);
  CHECK(at_open > 1000);
}

TEST_CASE("every truncation and every appended byte is found") {
  const Folder folder;
  const auto path = folder / "a.h5";
  counting_shard(path, {20, 30, 9});
  const std::string good = get(path);
  for (size_t size = 0; size < good.size(); size += 1 + size / 50) {
    put(path, good.substr(0, size));
    const std::string message = error_of<IoError>([&] { TokenShard::open(path); });
    INFO(size, ": ", message);
    REQUIRE(contains(message, path.string()));
  }
  put(path, good.substr(0, good.size() - 1));
  CHECK(contains(error_of<IoError>([&] { TokenShard::open(path); }), "truncated"));
  put(path, good + "x");
  CHECK(contains(error_of<IoError>([&] { TokenShard::open(path); }), "appended"));
}

TEST_CASE("hundreds of random mutations of a shard never crash and never pass") {
  const Folder folder;
  const auto path = folder / "a.h5";
  counting_shard(path, {20, 30, 9, 100});
  const std::string good = get(path);
  Philox random(11);
  for (int round = 0; round < 600; ++round) {
    std::string bad = good;
    const uint64_t edits = 1 + random.below(8);
    for (uint64_t e = 0; e < edits; ++e) {
      const size_t at = random.below(bad.size());
      switch (random.below(5)) {
        case 0:
          bad[at] = static_cast<char>(random.next_u32());
          break;
        case 1:
          bad.erase(at, 1 + random.below(64));
          break;
        case 2:
          bad.insert(at, 1 + random.below(64), static_cast<char>(random.next_u32()));
          break;
        case 3:
          bad.replace(at, 16, bad, random.below(bad.size()), 16);
          break;
        case 4:
          bad.replace(at, 8, 8, '\xFF');
          break;
      }
      if (bad.empty()) bad.push_back('x');
    }
    if (bad == good) continue;
    put(path, bad);
    const std::string message = error_of<IoError>([&] { TokenShard::open(path)->verify(); });
    INFO("round ", round);
    REQUIRE(contains(message, path.string()));
  }
}

TEST_CASE("files that are no shards are named as what they are") {
  const Folder folder;
  const auto path = folder / "x";
  const auto open = [&] { TokenShard::open(path); };
  CHECK(contains(error_of<IoError>(open), "cannot open"));
  put(path, "");
  CHECK(contains(error_of<IoError>(open), "not a token shard"));
  put(path, "Once upon a time there was a text file.\n");
  CHECK(contains(error_of<IoError>(open), "not a token shard"));
  put(path, std::string(100'000, '\0'));
  CHECK(contains(error_of<IoError>(open), "not a token shard"));
  {
    std::lock_guard lock(hdf5_mutex());
    H5Fclose(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT));
  }
  CHECK(contains(error_of<IoError>(open), "an HDF5 file, but not a token shard"));
  std::filesystem::remove(path);
  std::filesystem::create_directory(path);
  CHECK(contains(error_of<IoError>(open), "not a regular file"));
}

namespace {

/// Changes a valid shard through the HDF5 library and seals it again: damage that digests can't
/// show, as another program's shard could have.
template <typename F>
void change_and_seal(const std::filesystem::path& path, const F& change,
                     int64_t format = kShardFormat, int64_t token_bytes = -1) {
  ShardSeal seal = check_seal(path);
  {
    std::lock_guard lock(hdf5_mutex());
    const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
    REQUIRE(file >= 0);
    change(file);
    const int64_t tokens_bytes = std::exchange(seal.tokens_bytes, 0);
    seal.tokens_begin = kSealBytes;
    if (const hid_t data = H5Dopen2(file, "tokens", H5P_DEFAULT); data >= 0) {
      // Without a place in the file, the library gives -1 plus the user block.
      if (const haddr_t begin = H5Dget_offset(data); begin >= kSealBytes && begin < 1 << 20) {
        seal.tokens_begin = static_cast<int64_t>(begin);
        seal.tokens_bytes = tokens_bytes;
      }
      H5Dclose(data);
    }
    REQUIRE(H5Fclose(file) >= 0);
  }
  seal.format = format;
  if (token_bytes >= 0) seal.tokens_bytes = token_bytes;
  write_seal(path, seal);
}

void replace_array(hid_t file, const char* name, hid_t type, std::vector<hsize_t> extents,
                   const void* values, hid_t memory_type, bool chunked = false) {
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  REQUIRE(H5Ldelete(file, name, H5P_DEFAULT) >= 0);
  const hid_t space = H5Screate_simple(static_cast<int>(extents.size()), extents.data(), nullptr);
  const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
  if (chunked) H5Pset_chunk(creation, 1, extents.data());
  H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY);
  const hid_t data = H5Dcreate2(file, name, type, space, H5P_DEFAULT, creation, H5P_DEFAULT);
  REQUIRE(data >= 0);
  if (values != nullptr)
    REQUIRE(H5Dwrite(data, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
  H5Dclose(data);
  H5Pclose(creation);
  H5Sclose(space);
}

void replace_attribute(hid_t file, const char* name, int64_t value) {
  REQUIRE(H5Adelete(file, name) >= 0);
  const hid_t space = H5Screate(H5S_SCALAR);
  const hid_t attribute = H5Acreate2(file, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT);
  REQUIRE(H5Awrite(attribute, H5T_NATIVE_INT64, &value) >= 0);
  H5Aclose(attribute);
  H5Sclose(space);
}

}  // namespace

TEST_CASE("a sealed shard with a wrong structure gives an error that names the part") {
  const Folder folder;
  const auto path = folder / "a.h5";
  const auto message_after = [&](auto change, int64_t format = kShardFormat,
                                 int64_t token_bytes = -1) {
    counting_shard(path, {4, 3, 2});  // 9 tokens, offsets 0 4 7 9, bytes 1 4 7
    change_and_seal(path, change, format, token_bytes);
    const std::string message = error_of<IoError>([&] { TokenShard::open(path)->verify(); });
    CHECK((message.empty() || contains(message, path.string())));
    return message;
  };
  CHECK(message_after([](hid_t) {}) == "");

  for (const char* name :
       {"tokens", "document_offsets", "document_bytes", "tokenizer_json", "sources"}) {
    CAPTURE(name);
    const std::string message =
        message_after([&](hid_t file) { H5Ldelete(file, name, H5P_DEFAULT); });
    CHECK(contains(message, name));
    CHECK(contains(message, "without the dataset"));
  }
  for (const char* name : {"format_version", "vocab_size", "end_of_text", "text_bytes",
                           "tokenizer_digest", "content_digest"}) {
    CAPTURE(name);
    const std::string message = message_after([&](hid_t file) { H5Adelete(file, name); });
    CHECK(contains(message, name));
    CHECK(contains(message, "without the attribute"));
  }

  const double doubles[9] = {};
  const int64_t ids[9] = {1, 2, 3, 4, 5, 6, 7, 8, 99'999};
  const auto tokens_as = [&](hid_t type, std::vector<hsize_t> extents, bool chunked = false) {
    return message_after([=](hid_t file) {
      replace_array(file, "tokens", type, extents, ids, H5T_NATIVE_INT64, chunked);
    });
  };
  CHECK(contains(tokens_as(H5T_STD_I16LE, {9}), "uint16 or uint32"));
  CHECK(contains(tokens_as(H5T_STD_U64LE, {9}), "uint16 or uint32"));
  CHECK(contains(tokens_as(H5T_STD_U32BE, {9}), "uint16 or uint32"));
  CHECK(contains(tokens_as(H5T_STD_U32LE, {3, 3}), "uint16 or uint32"));
  CHECK(contains(tokens_as(H5T_STD_U32LE, {9}, true), "uint16 or uint32"));
  CHECK(contains(message_after([&](hid_t file) {
                   replace_array(file, "tokens", H5T_IEEE_F32LE, {9}, doubles, H5T_NATIVE_DOUBLE);
                 }),
                 "uint16 or uint32"));
  CHECK(contains(
      message_after(
          [&](hid_t file) { replace_array(file, "tokens", H5T_STD_U32LE, {0}, nullptr, 0); }, 1, 0),
      "at least one"));

  const auto offsets_as = [&](std::vector<int64_t> offsets) {
    return message_after([&](hid_t file) {
      replace_array(file, "document_offsets", H5T_STD_I64LE, {offsets.size()}, offsets.data(),
                    H5T_NATIVE_INT64);
    });
  };
  CHECK(offsets_as({0, 4, 7, 9}) == "");
  CHECK(contains(offsets_as({0, 4, 3, 9}), "increasing"));
  CHECK(contains(offsets_as({0, 4, 4, 9}), "increasing"));
  CHECK(contains(offsets_as({0, 4, 10, 9}), "increasing"));
  CHECK(contains(offsets_as({0, 4, 7, 10}), "increasing"));
  CHECK(contains(offsets_as({1, 4, 7, 9}), "begins at token 1"));
  CHECK(contains(offsets_as({-5, 4, 7, 9}), "begins at token -5"));
  CHECK(contains(offsets_as({0, 4, 7, 8}), "end at token 8"));
  CHECK(contains(offsets_as({0, 4, 9}), "3 document offsets for 3 documents"));

  const auto bytes_as = [&](std::vector<int64_t> bytes) {
    return message_after([&](hid_t file) {
      replace_array(file, "document_bytes", H5T_STD_I64LE, {bytes.size()}, bytes.data(),
                    H5T_NATIVE_INT64);
    });
  };
  CHECK(contains(bytes_as({1, -4, 7}), "exceeds"));
  CHECK(contains(bytes_as({1, INT64_MAX, INT64_MAX}), "exceeds"));
  CHECK(contains(bytes_as({1, 4, 6}), "11 bytes in all"));

  const auto attribute_as = [&](const char* name, int64_t value) {
    return message_after([&](hid_t file) { replace_attribute(file, name, value); });
  };
  CHECK(contains(attribute_as("vocab_size", 0), "vocab_size"));
  CHECK(contains(attribute_as("vocab_size", int64_t{1} << 40), "vocab_size"));
  CHECK(contains(attribute_as("end_of_text", -1), "end_of_text"));
  CHECK(contains(attribute_as("end_of_text", 100'000), "end_of_text"));
  CHECK(contains(attribute_as("tokenizer_digest", 3), "a string"));
  CHECK(contains(attribute_as("format_version", 2), "format 2"));

  CHECK(contains(message_after([](hid_t) {}, 2), "format 2, this build reads up to 1"));
  CHECK(contains(message_after([](hid_t) {}, 1, 8), "seal"));
}

TEST_CASE("a token outside the vocabulary is an error when it is read") {
  const Folder folder;
  const auto path = folder / "a.h5";
  for (const uint32_t id : {100'000u, 0xFFFFFFFFu}) {
    counting_shard(path, {4, 3, 2});
    ShardSeal seal = check_seal(path);
    std::string bytes = get(path);
    std::memcpy(&bytes[static_cast<size_t>(seal.tokens_begin) + 4 * 5], &id, 4);
    put(path, bytes);
    write_seal(path, seal);  // the digest agrees: only the vocabulary shows it
    const auto shard = TokenShard::open(path);
    std::vector<TokenId> tokens(5);
    shard->read_tokens(0, tokens);
    const std::string message = error_of<IoError>([&] { shard->read_tokens(1, tokens); });
    CHECK(contains(message, fmt::format("token {} at position 5", id)));
    CHECK(contains(error_of<IoError>([&] { shard->verify(); }), "position 5"));
  }
}

TEST_CASE("shards of different tokenizers are not opened together") {
  const Folder folder;
  counting_shard(folder / "a.h5", {4}, 0, 300);
  counting_shard(folder / "b.h5", {4}, 0, 300);
  const std::vector<std::string> glob = {(folder / "*.h5").string()};
  CHECK(open_shards(glob).size() == 2);
  counting_shard(folder / "c.h5", {4}, 0, 301);
  CHECK(contains(error_of<IoError>([&] { open_shards(glob); }), "different tokenizers"));
  const std::vector<std::string> nothing = {(folder / "*.hdf").string()};
  CHECK(contains(error_of<ConfigError>([&] { open_shards(nothing); }), "no file matches"));
}

TEST_CASE("a shard in an unwritable place is an error before any work") {
  const Folder folder;
  put(folder / "file", "x");
  const CountingTokenizer tokenizer;
  CHECK(contains(error_of<IoError>([&] { TokenShardWriter(folder / "file/a.h5", tokenizer); }),
                 "file"));
  CHECK(contains(error_of<IoError>([&] { TokenShardWriter("/proc/a.h5", tokenizer); }), "/proc"));
  CHECK(contains(
      error_of<ConfigError>([&] { TokenShardWriter(folder / "a.h5", tokenizer).finish({}); }),
      "no document"));
  CHECK(folder.names() == std::vector<std::string>{"file"});
}

TEST_CASE("a disk that fills up at any point leaves the earlier shard and no debris") {
  const Folder folder;
  const auto path = folder / "a.h5";
  counting_shard(path, {5});
  const std::string earlier = get(path);
  struct rlimit before;
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);  // writes then fail with EFBIG
  std::vector<int64_t> lengths(40'000, 5);                 // more than a spool's buffer
  int failures = 0;
  for (rlim_t limit = 0; limit <= 1'400'000; limit = limit * 5 / 4 + 300) {
    struct rlimit now = before;
    now.rlim_cur = limit;
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &now) == 0);
    const std::string message =
        error_of<IoError>([&] { counting_shard(path, lengths, 0, 1'000'000); });
    ::setrlimit(RLIMIT_FSIZE, &before);
    INFO("limit ", limit, ": ", message);
    REQUIRE(contains(message, "File too large"));
    REQUIRE(folder.names() == std::vector<std::string>{"a.h5"});
    REQUIRE(get(path) == earlier);
    ++failures;
  }
  std::signal(SIGXFSZ, old_handler);
  CHECK(failures > 20);
  CHECK(counting_shard(path, lengths, 0, 1'000'000)->info().documents == 40'000);
}
