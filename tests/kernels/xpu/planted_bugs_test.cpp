// Every planted bug is caught by the modes that the table in kernels/xpu/README.md names, its correct twin
// by none, and the table says what was found here. LH_WRITE_MATRIX=1 prints this build's columns.
#include "kernels/xpu/planted_bugs.h"

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <functional>
#include <map>
#include <sstream>
#include <string>

#include "kernels/support/build.h"
#include "kernels/xpu/xpu.h"

namespace {

using namespace lh::test;
using xpu::emu::Async;
using xpu::emu::Mode;
using xpu::emu::Order;

/// In a process of its own, because a bug may crash it: wrong result, xpu::Error, sanitizer, signal.
bool caught(const PlantedBug& planted, bool bug, const Mode& mode) {
  const pid_t child = fork();
  if (child == 0) {
    std::freopen("/dev/null", "w", stderr);
    int code = 1;
    try {
      xpu::emu::set_mode(mode);
      code = planted.run(bug) ? 0 : 1;
    } catch (const std::exception&) {
      code = 2;
    }
    _exit(code);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

struct Column {
  std::string name;
  std::vector<Mode> modes;  // caught in any of them
};

std::vector<Column> columns() {
  const std::string build = lh::test::kernel_build();
  if (build == "asan") return {{"asan", {{Order::kSequential, Async::kEarly, 1}}}};
  if (build == "race") {
    xpu::emu::enable_race_detector();
    return {{"race", {{Order::kSequential, Async::kEarly, 1}}}};
  }
  const auto seeds = [](Order order, Async async) {
    std::vector<Mode> modes;
    for (std::uint64_t seed = 1; seed <= 3; ++seed) modes.push_back({order, async, seed});
    return modes;
  };
  return {{"sequential", {{Order::kSequential, Async::kEarly, 1}}},
          {"reverse", {{Order::kReverse, Async::kEarly, 1}}},
          {"random", seeds(Order::kRandom, Async::kEarly)},
          {"late", {{Order::kSequential, Async::kLate, 1}}},
          {"async random", seeds(Order::kSequential, Async::kRandom)}};
}

/// Cells of the README's table by (bug, column).
std::map<std::pair<std::string, std::string>, std::string> written() {
  std::ifstream file(std::string(LH_SOURCE_DIR) + "/kernels/xpu/README.md");
  std::map<std::pair<std::string, std::string>, std::string> cells;
  std::vector<std::string> names;
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("|--", 0) == 0) continue;
    if (line.rfind("| ", 0) != 0) {
      names.clear();
      continue;
    }
    std::vector<std::string> row;
    std::istringstream parts(line.substr(2));
    for (std::string cell; std::getline(parts, cell, '|');) {
      while (!cell.empty() && cell.front() == ' ') cell.erase(0, 1);
      while (!cell.empty() && cell.back() == ' ') cell.pop_back();
      row.push_back(cell);
    }
    if (names.empty()) {
      names = row;
      continue;
    }
    for (std::size_t i = 1; i < row.size() && i < names.size(); ++i) cells[{row[0], names[i]}] = row[i];
  }
  return cells;
}

}  // namespace

TEST_CASE("planted bugs are caught by the modes that the matrix names and correct kernels by none") {
  const auto cells = written();
  const bool write = std::getenv("LH_WRITE_MATRIX") != nullptr;
  for (const Column& column : columns()) {
    for (const PlantedBug& planted : planted_bugs()) {
      const std::string name = planted.name;
      CAPTURE(name);
      CAPTURE(column.name);
      bool found = false;
      for (const Mode& mode : column.modes) {
        found |= caught(planted, true, mode);
        CHECK_MESSAGE(!caught(planted, false, mode), "the correct kernel is reported");
      }
      if (write) {
        std::printf("CELL|%s|%s|%s\n", planted.name, column.name.c_str(), found ? "yes" : "");
        continue;
      }
      const auto cell = cells.find({planted.name, column.name});
      REQUIRE_MESSAGE(cell != cells.end(), "not in the table of kernels/xpu/README.md");
      if (cell->second != "luck") CHECK(found == (cell->second == "yes"));
    }
  }
}

TEST_CASE("every planted bug is caught by some mode") {
  std::map<std::string, bool> any;
  for (const auto& [key, cell] : written()) any[key.first] |= cell == "yes";
  CHECK(planted_bugs().size() >= 14);
  for (const PlantedBug& planted : planted_bugs()) {
    const std::string name = planted.name;
    CAPTURE(name);
    CHECK(any[name]);
  }
}
