#include "data/tasks/mqar.h"

#include <algorithm>
#include <cmath>

#include "data/draw.h"

namespace lh {

Example make_mqar(const TaskConfig& task, Philox& random) {
  constexpr double kPower = 0.01;
  const int64_t pairs = *task.pairs, keys = *task.vocab / 2, values = *task.vocab - keys;
  const int64_t blank = *task.vocab, slots = *task.length / 2 - pairs;
  const std::vector<int64_t> key = draw_distinct(keys, pairs, random);
  std::vector<int64_t> value;
  for (int64_t i = 0; i < pairs; ++i)
    value.push_back(keys + static_cast<int64_t>(random.below(static_cast<uint64_t>(values))));
  std::vector<double> weights;
  for (int64_t i = 1; i <= slots; ++i)
    weights.push_back(std::pow(static_cast<double>(i), kPower - 1));
  const std::vector<int64_t> places = draw_weighted(weights, pairs, random);
  const std::vector<int64_t> asked = draw_distinct(pairs, pairs, random);  // a random order

  Example example;
  for (size_t i = 0; i < key.size(); ++i) {
    example.prompt(key[i]);
    example.prompt(value[i]);
  }
  size_t query = 0;
  for (int64_t slot = 0; slot < slots; ++slot) {
    if (query < places.size() && places[query] == slot) {
      const auto pair = static_cast<size_t>(asked[query++]);
      example.prompt(key[pair]);
      example.answer(value[pair]);
    } else {
      example.prompt(blank);
      example.prompt(blank);
    }
  }
  return example;
}

}  // namespace lh
