#include "data/tasks/selective_copy.h"

#include <algorithm>

#include "data/draw.h"

namespace lh {

Example make_selective_copy(const TaskConfig& task, Philox& random) {
  const int64_t vocab = *task.vocab, noise = vocab, copy = vocab + 1;
  const int64_t context = *task.length - *task.items - 1;
  std::vector<int64_t> places = draw_distinct(context, *task.items, random);
  std::sort(places.begin(), places.end());
  std::vector<int64_t> items;
  Example example;
  for (int64_t place = 0; place < context; ++place) {
    if (items.size() < places.size() && places[items.size()] == place) {
      items.push_back(static_cast<int64_t>(random.below(static_cast<uint64_t>(vocab))));
      example.prompt(items.back());
    } else {
      example.prompt(noise);
    }
  }
  example.prompt(copy);
  for (const int64_t item : items) example.answer(item);
  return example;
}

}  // namespace lh
