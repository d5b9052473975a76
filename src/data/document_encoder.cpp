#include "data/document_encoder.h"

#include <charconv>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "base/error.h"
#include "base/hash.h"

namespace lh {
using nlohmann::json;

namespace {

/// The chosen field of a JSONL line; `problem` says why there is none.
std::optional<std::string> text_of_line(const std::string& line, const std::string& field,
                                        std::string& problem) {
  try {
    json record = json::parse(line);
    if (!record.is_object()) {
      problem = fmt::format("expected an object, got {}", record.type_name());
    } else if (const auto found = record.find(field); found == record.end()) {
      problem = fmt::format("no field '{}'", field);
    } else if (!found->is_string()) {
      problem = fmt::format("field '{}' is not a string but {}", field, found->type_name());
    } else {
      return std::move(found->get_ref<std::string&>());
    }
  } catch (const json::exception& error) {
    problem = error.what();
  }
  return std::nullopt;
}

void encode_item(const Tokenizer& tokenizer, const DocumentEncoder::Options& options,
                 EncodeItem& item, Encoded& result) {
  Segment& segment = item.segment;
  if (item.jsonl) {
    std::string problem;
    std::optional<std::string> text = text_of_line(segment.text, options.jsonl_field, problem);
    if (!text && !options.skip_bad_lines)
      fail<IoError>("{}:{}: bad JSONL record: {}", *item.file, segment.line, problem);
    if (!text) {
      ++result.bad_lines;
      return;
    }
    segment.text = std::move(*text);
  }
  if (segment.text.empty() && segment.first && segment.last) {
    ++result.empty_documents;
    return;
  }
  Part part = item.part;
  if (part == Part::kByHash)
    part = part_by_hash(segment.text, options.seed, options.valid_fraction);
  Encoded::Output& output = result.outputs[static_cast<size_t>(part)];
  const size_t before = output.tokens.size();
  tokenizer.encode(segment.text, output.tokens);
  output.runs.push_back({static_cast<int64_t>(output.tokens.size() - before),
                         static_cast<int64_t>(segment.text.size()), segment.last});
}

struct Work {
  std::vector<EncodeItem> items;
  Encoded result;
  std::exception_ptr error;
  bool done = false;
};

}  // namespace

Part part_by_hash(std::string_view text, uint64_t seed, double valid_fraction) {
  if (valid_fraction <= 0) return Part::kTrain;
  Digest digest;
  digest.update(&seed, sizeof seed);
  digest.update(text.data(), text.size());
  const std::string hex = digest.hex();
  uint64_t bits = 0;
  std::from_chars(hex.data(), hex.data() + 13, bits, 16);  // 52 bits: exact in a double
  return static_cast<double>(bits) * 0x1.0p-52 < valid_fraction ? Part::kValid : Part::kTrain;
}

struct DocumentEncoder::State {
  State(const Tokenizer& tokenizer_, const Options& options_)
      : tokenizer(tokenizer_), options(options_) {}

  void run() {
    for (;;) {
      std::shared_ptr<Work> work;
      {
        std::unique_lock lock(mutex);
        has_work.wait(lock, [&] { return closing || !todo.empty(); });
        if (closing) return;
        work = std::move(todo.front());
        todo.pop_front();
      }
      try {
        for (EncodeItem& item : work->items) encode_item(tokenizer, options, item, work->result);
      } catch (...) {
        work->error = std::current_exception();
      }
      work->items = {};
      std::lock_guard lock(mutex);
      work->done = true;
      has_result.notify_all();
    }
  }

  void close() {
    {
      std::lock_guard lock(mutex);
      closing = true;
    }
    has_work.notify_all();
    for (std::thread& thread : threads) thread.join();
  }

  const Tokenizer& tokenizer;
  Options options;
  mutable std::mutex mutex;
  std::condition_variable has_work, has_result;
  std::deque<std::shared_ptr<Work>> todo;   // not begun
  std::deque<std::shared_ptr<Work>> order;  // submitted and not taken
  bool closing = false;
  std::vector<std::thread> threads;
};

DocumentEncoder::DocumentEncoder(const Tokenizer& tokenizer, const Options& options)
    : state_(std::make_unique<State>(tokenizer, options)) {
  LH_CHECK(options.threads >= 1, "[data] {} threads", options.threads);
  try {
    for (int i = 0; i < options.threads; ++i)
      state_->threads.emplace_back([state = state_.get()] { state->run(); });
  } catch (...) {
    state_->close();
    throw;
  }
}

DocumentEncoder::~DocumentEncoder() {
  state_->close();
}

void DocumentEncoder::submit(std::vector<EncodeItem> items) {
  auto work = std::make_shared<Work>();
  work->items = std::move(items);
  std::lock_guard lock(state_->mutex);
  state_->order.push_back(work);
  state_->todo.push_back(std::move(work));
  state_->has_work.notify_one();
}

Encoded DocumentEncoder::take() {
  std::unique_lock lock(state_->mutex);
  LH_CHECK(!state_->order.empty(), "[data] nothing submitted");
  const std::shared_ptr<Work> work = state_->order.front();
  state_->has_result.wait(lock, [&] { return work->done; });
  state_->order.pop_front();
  if (work->error) std::rethrow_exception(work->error);
  return std::move(work->result);
}

int64_t DocumentEncoder::in_flight() const {
  std::lock_guard lock(state_->mutex);
  return static_cast<int64_t>(state_->order.size());
}

}  // namespace lh
