// Small kernels, each with one bug that can be switched off: what the emulator is measured by.
#pragma once
#include <vector>

namespace lh::test {

struct PlantedBug {
  const char* name;  // as in the table of kernels/xpu/README.md
  bool (*run)(bool bug);  // true when the result is right; throws or crashes when that is how it shows
};

const std::vector<PlantedBug>& planted_bugs();

}  // namespace lh::test
