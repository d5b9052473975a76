#include "optim/schedule.h"

#include <doctest/doctest.h>

#include <cmath>

namespace {

using namespace lh;

ScheduleConfig schedule(const char* kind, const char* shape = "linear") {
  ScheduleConfig s;
  s.steps = 100;
  s.warmup_steps = 10;
  s.kind = kind;
  s.decay_steps = std::string(kind) == "wsd" ? 40 : 0;
  s.decay_shape = shape;
  s.final_lr_fraction = 0.1;
  return s;
}

TEST_CASE("warmup rises in equal steps to the peak for every kind") {
  for (const char* kind : {"constant", "cosine", "wsd"})
    for (int64_t step = 0; step < 10; ++step)
      CHECK(learning_rate_factor(schedule(kind), step) ==
            doctest::Approx(static_cast<double>(step + 1) / 10));
}

TEST_CASE("constant stays at the peak") {
  for (int64_t step = 9; step < 100; ++step)
    CHECK(learning_rate_factor(schedule("constant"), step) == 1);
}

TEST_CASE("cosine is half a wave from the peak to the floor") {
  for (int64_t step = 10; step < 100; ++step) {
    const double t = static_cast<double>(step - 9) / 90;
    CHECK(learning_rate_factor(schedule("cosine"), step) ==
          doctest::Approx(0.1 + 0.9 * std::pow(std::cos(std::acos(-1) * t / 2), 2)));
  }
  CHECK(learning_rate_factor(schedule("cosine"), 99) == doctest::Approx(0.1));
}

TEST_CASE("wsd holds the peak and then decays in its shape") {
  for (const char* shape : {"linear", "1-sqrt", "exponential"}) {
    const ScheduleConfig s = schedule("wsd", shape);
    for (int64_t step = 10; step < 60; ++step) CHECK(learning_rate_factor(s, step) == 1);
    double before = 1;
    for (int64_t step = 60; step < 100; ++step) {
      const double factor = learning_rate_factor(s, step), t = static_cast<double>(step - 59) / 40;
      CHECK(factor < before);
      before = factor;
      const std::string name = shape;
      const double want = name == "linear"   ? 1 - 0.9 * t
                          : name == "1-sqrt" ? 1 - 0.9 * std::sqrt(t)
                                             : std::exp(std::log(0.1) * t);
      CHECK(factor == doctest::Approx(want));
    }
    CHECK(before == doctest::Approx(0.1));
  }
}

TEST_CASE("no warmup starts at the peak and a floor of zero is reached") {
  ScheduleConfig s = schedule("wsd");
  s.warmup_steps = 0;
  s.final_lr_fraction = 0;
  CHECK(learning_rate_factor(s, 0) == 1);
  CHECK(learning_rate_factor(s, 99) == 0);
}

TEST_CASE("weight decay stays, or fades over the decay of wsd") {
  for (const char* kind : {"constant", "cosine", "wsd"})
    for (int64_t step = 0; step < 100; ++step)
      CHECK(weight_decay_factor(schedule(kind), step) == 1);
  ScheduleConfig s = schedule("wsd");
  s.weight_decay_power = 2;
  for (int64_t step = 0; step < 100; ++step) {
    const double left = step < 60 ? 1 : 1 - static_cast<double>(step - 59) / 40;
    CHECK(weight_decay_factor(s, step) == doctest::Approx(left * left));
  }
}

}  // namespace
