#!/usr/bin/env bash
# From a clean clone to all tests passed: installs what is missing, builds, runs ctest; then the CUDA
# backend on the emulated device, which needs neither a GPU nor the CUDA toolkit.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_WAIT_POLICY=passive  # tests share the cores: threads that wait by spinning slow each other tenfold
scripts/setup.sh xz-utils iproute2 slurm-wlm munge openmpi-bin
scripts/build.sh release
ctest --test-dir build/release --output-on-failure --no-tests=error -j"$(nproc)"
scripts/build.sh emulated cuda_tests
ctest --test-dir build/emulated --output-on-failure --no-tests=error -j"$(nproc)" -L '^cuda$'
