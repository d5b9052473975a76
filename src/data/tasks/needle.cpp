#include "data/tasks/needle.h"

#include <cmath>

#include "data/draw.h"

namespace lh {

Example make_needle(const TaskConfig& task, Philox& random) {
  const int64_t vocab = *task.vocab, mark = vocab, ask = vocab + 1, needles = *task.pairs;
  const int64_t noise = *task.length - (needles + 1) * (2 + *task.value_tokens);
  const auto symbol = [&] {
    return static_cast<int64_t>(random.below(static_cast<uint64_t>(vocab)));
  };
  const std::vector<int64_t> keys = draw_distinct(vocab, needles, random);
  // The first needle is the one asked for. Each stands before one of the noise tokens or the end.
  std::vector<std::vector<size_t>> needles_before(static_cast<size_t>(noise) + 1);
  std::vector<std::vector<int64_t>> values(keys.size());
  for (size_t i = 0; i < keys.size(); ++i) {
    int64_t place = static_cast<int64_t>(random.below(static_cast<uint64_t>(noise) + 1));
    if (i == 0 && task.depth) place = std::llround(*task.depth * static_cast<double>(noise));
    needles_before[static_cast<size_t>(place)].push_back(i);
    for (int64_t t = 0; t < *task.value_tokens; ++t) values[i].push_back(symbol());
  }

  Example example;
  for (int64_t place = 0; place <= noise; ++place) {
    for (const size_t i : needles_before[static_cast<size_t>(place)]) {
      example.prompt(mark);
      example.prompt(keys[i]);
      for (const int64_t token : values[i]) example.prompt(token);
    }
    if (place < noise) example.prompt(symbol());
  }
  example.prompt(ask);
  example.prompt(keys[0]);
  for (const int64_t token : values[0]) example.answer(token);
  return example;
}

}  // namespace lh
