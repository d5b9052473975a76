// The longhand binary: everything happens in src/cli.
#include "cli/app.h"

int main(int argc, char** argv) {
  return lh::run_app(argc, argv);
}
