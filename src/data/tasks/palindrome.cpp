#include "data/tasks/palindrome.h"

namespace lh {

Example make_palindrome(const TaskConfig& task, Philox& random) {
  const int64_t vocab = *task.vocab, wait = vocab, reverse = vocab + 1;
  Example example;
  for (int64_t i = 0; i < *task.items; ++i)
    example.prompt(static_cast<int64_t>(random.below(static_cast<uint64_t>(vocab))));
  for (int64_t i = 0; i + 1 < *task.gap; ++i) example.prompt(wait);
  example.prompt(reverse);
  for (auto i = static_cast<size_t>(*task.items); i > 0; --i) example.answer(example.symbols[i - 1]);
  return example;
}

}  // namespace lh
