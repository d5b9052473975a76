// Preparing shards: documents, formats, compression, order, splits and errors.
#include "data/prepare.h"

#include <sys/resource.h>
#include <unistd.h>
#include <zlib.h>

#include <doctest/doctest.h>
#include <algorithm>
#include <csignal>
#include <fstream>
#include <numeric>
#include <thread>

#include "base/hash.h"
#include "base/philox.h"
#include "data_support.h"

using namespace lh;
using namespace lh::test;

namespace {

void put_gz(const std::filesystem::path& path, const std::string& content) {
  gzFile file = gzopen(path.c_str(), "wb");
  REQUIRE(gzwrite(file, content.data(), static_cast<unsigned>(content.size())) ==
          static_cast<int>(content.size()));
  REQUIRE(gzclose(file) == Z_OK);
}

/// The texts of a shard's documents, decoded.
std::vector<std::string> texts(const std::filesystem::path& path) {
  const auto shard = TokenShard::open(path);
  shard->verify();
  const auto tokenizer = parse_tokenizer(shard->tokenizer_json(), "shard");
  const std::vector<int64_t> offsets = shard->document_offsets();
  const std::vector<int64_t> bytes = shard->document_bytes();
  std::vector<std::string> documents;
  for (size_t d = 0; d + 1 < offsets.size(); ++d) {
    std::vector<TokenId> ids(static_cast<size_t>(offsets[d + 1] - offsets[d]));
    shard->read_tokens(offsets[d], ids);
    REQUIRE(ids.back() == shard->info().end_of_text);
    ids.pop_back();
    documents.push_back(tokenizer->decode(ids));
    REQUIRE(static_cast<int64_t>(documents.back().size()) == bytes[d]);
  }
  return documents;
}

using Texts = std::vector<std::string>;

/// Words with punctuation, digits, other scripts, ill-formed bytes and blank lines.
std::string made_up_text(uint64_t seed, size_t bytes) {
  static const std::vector<std::string> words = {
      "the ",   "model ", "learns ", "don't ",   "1234567 ", "\n", "\n\n", "  ",    "größer ",
      "日本語", "😀 ",     "END. ",   "\xFF\xC3", "tab\t",    "a",  "\r\n", "x=y; ", "naïve "};
  Philox random(seed);
  std::string text;
  while (text.size() < bytes) text += words[random.below(words.size())];
  return text;
}

/// One of the small tokenizers that tests/tokenizer compares with another implementation.
std::unique_ptr<Tokenizer> golden_tokenizer(const std::string& name) {
  return load_tokenizer(std::filesystem::path(LH_SOURCE_DIR) / "tests/golden/tokenizer" /
                        (name + ".json"));
}

PrepareOptions options_for(const Folder& folder, std::vector<std::string> inputs) {
  PrepareOptions options;
  for (const std::string& input : inputs)
    options.inputs.push_back(input == "-" ? input : (folder / input).string());
  options.train_path = folder / "out/train.h5";
  options.threads = 2;
  return options;
}

PrepareResult run(const PrepareOptions& options) {
  const auto tokenizer = make_byte_tokenizer();
  return prepare(options, *tokenizer).value();
}

}  // namespace

TEST_CASE("a text file is one document and keeps every byte") {
  const Folder folder;
  const std::string text = made_up_text(1, 10'000) + std::string("\0\x80 end", 6);
  put(folder / "a.txt", text);
  const PrepareResult result = run(options_for(folder, {"a.txt"}));
  CHECK(texts(folder / "out/train.h5") == Texts{text});
  CHECK(result.train.text_bytes == static_cast<int64_t>(text.size()));
  CHECK(result.train.tokens == static_cast<int64_t>(text.size()) + 1);
  CHECK(result.train.sources ==
        std::vector<SourceFile>{{"a.txt", static_cast<int64_t>(text.size()), digest_of(text)}});
}

TEST_CASE("globs are sorted and files named twice are read once") {
  const Folder folder;
  for (const char* name : {"b.txt", "a.txt", "c.txt"}) put(folder / name, name);
  run(options_for(folder, {"c.txt", "*.txt"}));
  CHECK(texts(folder / "out/train.h5") == Texts{"c.txt", "a.txt", "b.txt"});
  CHECK(contains(error_of<ConfigError>([&] { run(options_for(folder, {"*.md"})); }),
                 "no file matches"));
  CHECK(contains(error_of<ConfigError>([&] { run(options_for(folder, {"d.txt"})); }),
                 "no such file"));
  CHECK(contains(error_of<ConfigError>([&] { run(options_for(folder, {"out"})); }), "is a folder"));
}

TEST_CASE("blank lines separate documents") {
  const Folder folder;
  put(folder / "a.txt", "\n \none\ntwo\n\n\t\r\nthree\n\n\n\nfour \n\n\n");
  put(folder / "b.txt", "five");
  put(folder / "c.txt", "\n\n\n");
  PrepareOptions options = options_for(folder, {"a.txt", "b.txt", "c.txt"});
  options.split = DocumentSplit::kBlankLines;
  run(options);
  CHECK(texts(options.train_path) == Texts{"one\ntwo\n", "three\n", "four \n", "five"});
  options.blank_lines = 3;
  run(options);
  CHECK(texts(options.train_path) ==
        Texts{"\n \none\ntwo\n\n\t\r\nthree\n", "four \n\n\n", "five"});
  options.blank_lines = 0;
  CHECK_THROWS_AS(run(options), ConfigError);
}

TEST_CASE("a literal string separates documents and empty ones are counted") {
  const Folder folder;
  put(folder / "a.txt", "one<|end|>two\n<|end|><|end|>three <|en<|end|>");
  put(folder / "b.txt", "four");
  PrepareOptions options = options_for(folder, {"a.txt", "b.txt"});
  options.split = DocumentSplit::kSeparator;
  options.separator = "<|end|>";
  CHECK(run(options).empty_documents == 1);
  CHECK(texts(options.train_path) == Texts{"one", "two\n", "three <|en", "four"});
  options.separator = "";
  CHECK_THROWS_AS(run(options), ConfigError);
}

TEST_CASE("separators across read and segment borders are found") {
  const Folder folder;
  Philox random(3);
  std::string all;
  Texts expected;
  while (all.size() < 2'000'000) {
    std::string document = made_up_text(random.next_u64(), random.below(200'000));
    std::replace(document.begin(), document.end(), '=', '-');
    if (document.empty()) continue;
    all += document + "==SEP==";
    expected.push_back(document);
  }
  put(folder / "a.txt", all);
  PrepareOptions options = options_for(folder, {"a.txt"});
  options.split = DocumentSplit::kSeparator;
  options.separator = "==SEP==";
  options.segment_bytes = 5'000;
  run(options);
  CHECK(texts(options.train_path) == expected);
}

TEST_CASE("JSONL takes the chosen field of each line") {
  const Folder folder;
  put(folder / "a.jsonl",
      "\xEF\xBB\xBF{\"text\": \"one\\ntwo \\u00e9 \\ud83d\\ude00\", \"body\": \"b1\"}\r\n"
      "\n"
      "{\"text\": \"\", \"body\": \"b2\"}\n"
      "{\"body\": \"b3\", \"text\": \"last\"}");
  PrepareOptions options = options_for(folder, {"a.jsonl"});
  CHECK(run(options).empty_documents == 1);
  CHECK(texts(options.train_path) == Texts{"one\ntwo é 😀", "last"});
  options.jsonl_field = "body";
  run(options);
  CHECK(texts(options.train_path) == Texts{"b1", "b2", "b3"});
  options.format = InputFormat::kText;
  run(options);
  CHECK(texts(options.train_path) == Texts{get(folder / "a.jsonl")});
}

TEST_CASE("a bad JSONL line is an error with file and line or is counted on request") {
  const Folder folder;
  for (const auto& [line, reason] : std::vector<std::pair<std::string, std::string>>{
           {"{\"text\": \"cut", "parse error"},
           {"[1, 2]", "expected an object, got array"},
           {"{\"txt\": \"x\"}", "no field 'text'"},
           {"{\"text\": 7}", "not a string but number"},
           {"{\"text\": \"\xFF\"}", "UTF-8"}}) {
    put(folder / "a.jsonl", "{\"text\": \"good\"}\n\n" + line + "\n{\"text\": \"fine\"}\n");
    PrepareOptions options = options_for(folder, {"a.jsonl"});
    const std::string message = error_of<IoError>([&] { run(options); });
    INFO(message);
    CHECK(contains(message, "a.jsonl:3: "));
    CHECK(contains(message, reason));
    CHECK(!std::filesystem::exists(options.train_path));
    options.skip_bad_lines = true;
    CHECK(run(options).bad_lines == 1);
    CHECK(texts(options.train_path) == Texts{"good", "fine"});
    std::filesystem::remove(options.train_path);
  }
}

TEST_CASE("compressed input gives the shard of the plain text") {
  const Folder folder;
  const std::string text = made_up_text(4, 900'000);
  const std::string lines = "{\"text\": \"one\"}\n{\"text\": \"two\"}\n";
  put(folder / "a.txt", text);
  put_gz(folder / "a.txt.gz", text);
  put_gz(folder / "a.dict.dz", text);
  put(folder / "b.jsonl", lines);
  put_gz(folder / "b.jsonl.gz", lines);
  // Two gzip members one after another are one stream.
  put_gz(folder / "1.gz", text.substr(0, 1234));
  put_gz(folder / "2.gz", text.substr(1234));
  put(folder / "two.gz", get(folder / "1.gz") + get(folder / "2.gz"));
  const auto digest = [&](const std::string& name) {
    return run(options_for(folder, {name})).train.content_digest;
  };
  CHECK(digest("a.txt") == digest("a.txt.gz"));
  CHECK(digest("a.txt") == digest("a.dict.dz"));
  CHECK(digest("a.txt") == digest("two.gz"));
  CHECK(digest("b.jsonl") == digest("b.jsonl.gz"));
  CHECK(run(options_for(folder, {"a.txt.gz"})).train.sources[0] ==
        SourceFile{"a.txt.gz", static_cast<int64_t>(text.size()), digest_of(text)});
}

TEST_CASE("broken gzip input is an error") {
  const Folder folder;
  put_gz(folder / "good.gz", made_up_text(5, 500'000));
  const std::string good = get(folder / "good.gz");
  const auto message = [&](const std::string& content) {
    put(folder / "bad.gz", content);
    return error_of<IoError>([&] { run(options_for(folder, {"bad.gz"})); });
  };
  CHECK(contains(message(good.substr(0, good.size() / 2)), "broken gzip data"));
  CHECK(contains(message(good.substr(0, good.size() - 1)), "broken gzip data"));
  CHECK(contains(message(good.substr(0, 5)), "bad.gz"));
  std::string flipped = good;
  flipped[good.size() / 2] = static_cast<char>(flipped[good.size() / 2] ^ 0x10);
  CHECK(contains(message(flipped), "broken gzip data"));
  CHECK(contains(message("just text"), "named like a gzip file"));
}

TEST_CASE("standard input is read from a pipe with progress") {
  const Folder folder;
  const std::string text = made_up_text(12, 700'000);
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  std::thread feeder([&] {
    for (size_t done = 0; done < text.size();) {
      const ssize_t put = ::write(ends[1], text.data() + done, text.size() - done);
      if (put <= 0) break;
      done += static_cast<size_t>(put);
    }
    ::close(ends[1]);
  });
  const int saved = ::dup(STDIN_FILENO);
  ::dup2(ends[0], STDIN_FILENO);
  const auto tokenizer = make_byte_tokenizer();
  PrepareProgress last;
  const auto result =
      prepare(options_for(folder, {"-"}), *tokenizer, [&](const PrepareProgress& now) {
        CHECK(now.bytes_done >= last.bytes_done);
        last = now;
      });
  ::dup2(saved, STDIN_FILENO);
  ::close(saved);
  ::close(ends[0]);
  feeder.join();
  CHECK(texts(folder / "out/train.h5") == Texts{text});
  CHECK(result.value().train.sources[0].name == "standard input");
  CHECK(last.bytes_total == 0);
  CHECK(!last.seconds_left);
  CHECK(last.bytes_done == static_cast<int64_t>(text.size()));
}

TEST_CASE("one and four threads write the same bytes") {
  const Folder folder;
  put(folder / "a.txt", made_up_text(6, 3'000'000));
  std::string lines;
  for (int i = 0; i < 20'000; ++i)
    lines += fmt::format("{{\"text\": \"document {} says {}\"}}\n", i, i * 7919 % 1000);
  put(folder / "b.jsonl", lines);
  PrepareOptions options = options_for(folder, {"a.txt", "b.jsonl"});
  options.split = DocumentSplit::kBlankLines;
  options.blank_lines = 3;
  options.valid_fraction = 0.1;
  options.valid_path = folder / "out/valid.h5";
  options.segment_bytes = 20'000;
  const auto tokenizer = golden_tokenizer("gpt2");
  std::vector<std::string> outputs;
  for (const int threads : {1, 4, 3}) {
    options.threads = threads;
    REQUIRE(prepare(options, *tokenizer));
    outputs.push_back(get(options.train_path) + get(options.valid_path));
    // HDF5 likes to store times, with a resolution of one second.
    std::this_thread::sleep_for(std::chrono::milliseconds(600));
  }
  CHECK(outputs[0] == outputs[1]);
  CHECK(outputs[0] == outputs[2]);
}

TEST_CASE("a long document tokenized in segments has the tokens of the whole") {
  const Folder folder;
  std::string text = made_up_text(7, 500'000);
  const std::string corpus =
      get(std::filesystem::path(LH_SOURCE_DIR) / "tests/golden/tokenizer/corpus.txt");
  REQUIRE(corpus.size() > 10'000);
  text += corpus + text;
  text.insert(200'000, std::string(100'000, 'z'));  // nowhere to cut
  text.insert(100'000, std::string(50'000, ' '));
  put(folder / "a.txt", text);
  for (const char* name : {"gpt2", "llama3", "qwen2", "prefix", "digits"}) {
    CAPTURE(name);
    const auto tokenizer = golden_tokenizer(name);
    PrepareOptions options = options_for(folder, {"a.txt"});
    options.segment_bytes = 3'000;
    REQUIRE(prepare(options, *tokenizer));
    std::vector<TokenId> expected;
    tokenizer->encode(text, expected);
    expected.push_back(tokenizer->end_of_text().value());
    const auto shard = TokenShard::open(options.train_path);
    REQUIRE(shard->info().documents == 1);
    REQUIRE(shard->info().tokens == static_cast<int64_t>(expected.size()));
    std::vector<TokenId> tokens(expected.size());
    shard->read_tokens(0, tokens);
    CHECK(tokens == expected);
  }
}

TEST_CASE("a fraction of the documents is held out by their content") {
  const Folder folder;
  std::string lines;
  for (int i = 0; i < 5'000; ++i)
    lines += fmt::format("{{\"text\": \"document {}\"}}\n", i % 2'500);
  put(folder / "a.jsonl", lines);
  PrepareOptions options = options_for(folder, {"a.jsonl"});
  options.valid_path = folder / "out/valid.h5";
  options.valid_fraction = 0.2;
  const PrepareResult result = run(options);
  CHECK(result.train.documents + result.valid.value().documents == 5'000);
  CHECK(std::abs(result.valid->documents - 1'000) < 2 * 4 * 20);  // copies go together
  Texts train = texts(options.train_path), valid = texts(options.valid_path), common;
  std::sort(train.begin(), train.end());
  std::sort(valid.begin(), valid.end());
  std::set_intersection(train.begin(), train.end(), valid.begin(), valid.end(),
                        std::back_inserter(common));
  CHECK(common.empty());
  options.seed = 1;
  CHECK(run(options).valid.value().content_digest != result.valid->content_digest);
}

TEST_CASE("the last bytes of the input are held out") {
  const Folder folder;
  std::string text;
  for (int i = 0; i < 30'000; ++i) text += fmt::format("line number {}\n", i);
  const size_t half = text.size() / 2;
  put(folder / "a.txt", text.substr(0, half));
  put(folder / "b.txt", text.substr(half));
  PrepareOptions options = options_for(folder, {"a.txt", "b.txt"});
  options.valid_path = folder / "out/valid.h5";
  for (const int64_t last :
       {int64_t{1}, int64_t{1'000}, int64_t{50'000}, static_cast<int64_t>(text.size() - half),
        static_cast<int64_t>(text.size() - half + 20'000)}) {
    CAPTURE(last);
    options.valid_last_bytes = last;
    options.segment_bytes = 4'096;
    const PrepareResult result = run(options);
    const Texts train = texts(options.train_path), valid = texts(options.valid_path);
    CHECK(std::accumulate(train.begin(), train.end(), std::string()) +
              std::accumulate(valid.begin(), valid.end(), std::string()) ==
          text);
    CHECK(result.valid.value().text_bytes >= last);
    CHECK(result.valid->text_bytes < last + 20);  // back to a line's start
    CHECK(train.size() + valid.size() <= 3);
  }
  options.valid_last_bytes = static_cast<int64_t>(text.size());
  CHECK(contains(error_of<ConfigError>([&] { run(options); }), "the input has only"));
}

TEST_CASE("the last bytes of JSONL input are whole records") {
  const Folder folder;
  std::string lines;
  for (int i = 0; i < 100; ++i) lines += fmt::format("{{\"text\": \"document {:02}\"}}\n", i);
  put(folder / "a.jsonl", lines);
  PrepareOptions options = options_for(folder, {"a.jsonl"});
  options.valid_path = folder / "out/valid.h5";
  options.valid_last_bytes = 23 * 10 - 5;
  run(options);
  CHECK(texts(options.train_path).size() == 90);
  CHECK(texts(options.valid_path).front() == "document 90");
}

TEST_CASE("progress grows to the end and stopping writes nothing") {
  const Folder folder;
  put(folder / "a.txt", made_up_text(8, 2'000'000));
  const PrepareOptions options = options_for(folder, {"a.txt"});
  const auto tokenizer = make_byte_tokenizer();
  PrepareProgress last;
  REQUIRE(prepare(options, *tokenizer, [&](const PrepareProgress& now) {
    REQUIRE(now.bytes_done >= last.bytes_done);
    REQUIRE(now.tokens >= last.tokens);
    last = now;
  }));
  CHECK(last.bytes_done == last.bytes_total);
  CHECK(last.bytes_total == static_cast<int64_t>(get(folder / "a.txt").size()));
  CHECK(last.documents == 1);
  CHECK(last.tokens == last.bytes_total + 1);
  CHECK(last.seconds_left.value() == 0);

  std::filesystem::remove(options.train_path);
  const std::atomic<bool> stop{true};
  CHECK(!prepare(options, *tokenizer, {}, &stop));
  CHECK(std::filesystem::is_empty(folder / "out"));
}

TEST_CASE("options that contradict each other are errors") {
  const Folder folder;
  put(folder / "a.txt", "text");
  put(folder / "empty.txt", "");
  const auto message = [&](auto change) {
    PrepareOptions options = options_for(folder, {"a.txt"});
    change(options);
    return error_of<ConfigError>([&] { run(options); });
  };
  CHECK(contains(message([](auto& o) { o.inputs.clear(); }), "no input"));
  CHECK(contains(message([](auto& o) { o.train_path.clear(); }), "no output"));
  CHECK(contains(message([](auto& o) { o.valid_fraction = 1.5; }), "valid_fraction"));
  CHECK(contains(message([](auto& o) { o.valid_fraction = 0.5; }), "no output for it"));
  CHECK(contains(message([](auto& o) { o.valid_path = "x.h5"; }), "would be empty"));
  CHECK(contains(message([](auto& o) {
                   o.valid_path = o.train_path;
                   o.valid_last_bytes = 1;
                 }),
                 "both"));
  CHECK(contains(message([&](auto& o) { o.inputs = {(folder / "empty.txt").string()}; }),
                 "no document"));
}

TEST_CASE("an unwritable output is an error before the input is read") {
  const Folder folder;
  put(folder / "a.txt", "text");
  PrepareOptions options = options_for(folder, {"a.txt"});
  options.train_path = folder / "a.txt/train.h5";
  CHECK(contains(error_of<IoError>([&] { run(options); }), "a.txt"));
  options.train_path = "/proc/train.h5";
  CHECK(contains(error_of<IoError>([&] { run(options); }), "/proc"));
}

TEST_CASE("a full disk during preparation keeps the earlier shards") {
  const Folder folder;
  put(folder / "a.txt", made_up_text(9, 1'500'000));
  PrepareOptions options = options_for(folder, {"a.txt"});
  options.valid_path = folder / "out/valid.h5";
  options.valid_last_bytes = 600'000;
  put(folder / "b.txt", made_up_text(10, 700'000));
  PrepareOptions small = options;
  small.inputs = {(folder / "b.txt").string()};
  run(small);
  const std::string earlier = get(options.train_path);
  struct rlimit before;
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  for (const rlim_t limit : {0, 100'000, 1'000'000, 1'400'000}) {
    struct rlimit now = before;
    now.rlim_cur = limit;
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &now) == 0);
    const std::string message = error_of<IoError>([&] { run(options); });
    ::setrlimit(RLIMIT_FSIZE, &before);
    INFO(limit, ": ", message);
    REQUIRE(contains(message, "File too large"));
    REQUIRE(get(options.train_path) == earlier);
    for (const auto& entry : std::filesystem::directory_iterator(folder / "out"))
      REQUIRE(entry.path().extension() == ".h5");
  }
  std::signal(SIGXFSZ, old_handler);
}
