#include "checkpoint/checkpoint_folder.h"

#include <doctest/doctest.h>

#include "base/file.h"
#include "support/folder.h"

namespace {

using namespace lh;
using namespace lh::test;
namespace fs = std::filesystem;

fs::path save(const Folder& folder, int64_t step, const std::string& content = "data") {
  return write_checkpoint(folder.path(), step, [&](const fs::path& into) {
    write_file_atomically(into / "weights", content);
  });
}

TEST_CASE("the newest whole checkpoint is found and damaged ones are passed over") {
  const Folder folder;
  CHECK(!latest_checkpoint(folder.path()).has_value());
  save(folder, 1);
  save(folder, 10);
  const fs::path newest = save(folder, 9);
  CHECK(latest_checkpoint(folder.path())->filename() == "step_00000010");
  put(folder / "step_00000010/weights", "dama");
  CHECK(latest_checkpoint(folder.path()) == newest);
  fs::remove(newest / "manifest.json");
  CHECK(latest_checkpoint(folder.path())->filename() == "step_00000001");
  fs::remove(folder / "step_00000001/weights");
  CHECK(!latest_checkpoint(folder.path()).has_value());
}

TEST_CASE("saving a step again replaces it") {
  const Folder folder;
  save(folder, 5, "old");
  save(folder, 5, "new");
  CHECK(read_file(folder / "step_00000005/weights") == "new");
  CHECK(folder.names().size() == 1);
}

TEST_CASE("a failed save leaves the last good checkpoint and no debris") {
  const Folder folder;
  save(folder, 5);
  CHECK_THROWS_AS(write_checkpoint(folder.path(), 6,
                                   [](const fs::path& into) {
                                     write_file_atomically(into / "weights", "half");
                                     fail<IoError>("disk full");
                                   }),
                  IoError);
  CHECK(folder.names() == std::vector<std::string>{"step_00000005"});
  {
    const FileLimit limit(2);
    CHECK(error_of<IoError>([&] { save(folder, 6); }) != "");
  }
  CHECK(folder.names() == std::vector<std::string>{"step_00000005"});
  verify_checkpoint(folder / "step_00000005");
}

TEST_CASE("what a killed process left behind is removed by the next save") {
  const Folder folder;
  fs::create_directories(folder / ".saving-step_00000007");
  put(folder / ".saving-step_00000007/weights", "half");
  CHECK(!latest_checkpoint(folder.path()).has_value());
  save(folder, 8);
  CHECK(folder.names() == std::vector<std::string>{"step_00000008"});
}

TEST_CASE("the last n and the best are kept") {
  const Folder folder;
  for (int64_t step = 1; step <= 6; ++step) {
    const fs::path path = save(folder, step);
    if (step == 2) mark_best(path);
    prune_checkpoints(folder.path(), 2, true);
  }
  CHECK(folder.names() ==
        std::vector<std::string>{"best", "step_00000002", "step_00000005", "step_00000006"});
  prune_checkpoints(folder.path(), 1, false);
  CHECK(folder.names() == std::vector<std::string>{"best", "step_00000006"});
}

TEST_CASE("places that can't be written are errors that name them") {
  const Folder folder;
  put(folder / "file", "x");
  const std::string error = error_of<IoError>(
      [&] { write_checkpoint(folder / "file/below", 1, [](const fs::path&) {}); });
  CHECK_MESSAGE(contains(error, "cannot create the checkpoint folder"), error);
  if (::geteuid() == 0) {
    MESSAGE("skipped: root may write into a folder without write permission");
    return;
  }
  fs::create_directories(folder / "locked");
  fs::permissions(folder / "locked", fs::perms::owner_read | fs::perms::owner_exec);
  CHECK(error_of<IoError>(
            [&] { write_checkpoint(folder / "locked", 1, [](const fs::path&) {}); }) != "");
  fs::permissions(folder / "locked", fs::perms::owner_all);
}

TEST_CASE("a run folder or a checkpoint folder opens and anything else says what was expected") {
  const Folder folder;
  const fs::path path = write_checkpoint(folder / "checkpoints", 3, [](const fs::path& into) {
    write_file_atomically(into / "weights", "x");
  });
  CHECK(find_checkpoint(path) == path);
  CHECK(find_checkpoint(folder.path()) == path);
  CHECK(contains(error_of<IoError>([&] { find_checkpoint(folder / "nothing"); }),
                 "expected a checkpoint folder"));
}

}  // namespace
