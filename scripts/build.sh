#!/usr/bin/env bash
# Configures and builds one preset (default: release) into build/<preset>: everything, or the targets
# named after it.
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${1:-release}
shift || true
cmake --preset "$preset" -Wno-dev >build-configure.log 2>&1 || {
  cat build-configure.log
  rm -f build-configure.log
  exit 1
}
rm -f build-configure.log
cmake --build --preset "$preset" ${1:+--target "$@"}
