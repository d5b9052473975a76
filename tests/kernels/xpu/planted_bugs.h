// Small kernels, each with one bug that can be switched off: what the emulator is measured by.
#pragma once
#include <vector>

namespace lh::test {

struct PlantedBug {
  const char* name;  // as in the table of kernels/xpu/README.md
  bool (*run)(bool bug);  // true when the result is right; throws or crashes when that is how it shows
};

/// All, with those of planted_global_bugs.cu.
std::vector<PlantedBug> planted_bugs();
std::vector<PlantedBug> planted_global_bugs();

/// Values to work on: small integers.
inline std::vector<float> counting(int n) {
  std::vector<float> x(n);
  for (int i = 0; i < n; ++i) x[i] = static_cast<float>(i % 37 + 1);
  return x;
}

}  // namespace lh::test
