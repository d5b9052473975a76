#!/usr/bin/env bash
# From a clean clone to all tests passed: installs what is missing, builds, runs ctest.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh xz-utils
scripts/build.sh release
ctest --test-dir build/release --output-on-failure --no-tests=error -j"$(nproc)"
