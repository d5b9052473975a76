// The longhand binary: everything happens in src/cli.
#include "cli/app.h"
#include "runtime/brief_waits.h"

int main(int argc, char** argv) {
  lh::start_again_with_brief_waits(argv);
  return lh::run_app(argc, argv);
}
