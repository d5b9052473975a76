#!/usr/bin/env bash
# torchrun, where one is installed, starts the same training, with either rendezvous: with static (and c10d where
# it shares its store) the agent itself listens on MASTER_PORT. Every curve equals the plain one.
# usage: torchrun.sh LONGHAND
set -uo pipefail
longhand=$(realpath "${1:?usage: torchrun.sh LONGHAND}")
repository=$(cd "$(dirname "$0")/../.." && pwd)
if ! command -v torchrun >/dev/null || ! torchrun --help >/dev/null 2>&1; then
  echo "skipped: no torchrun that works in PATH (pip install torch)"
  exit 77
fi
# shellcheck source=tests/launch/same_run.sh
source "$(dirname "$0")/same_run.sh"

recipe_for standalone
torchrun --standalone --nproc-per-node 2 --no-python "$longhand" train standalone.yaml >standalone.log 2>&1
expect_code $? 0 "torchrun --standalone"
expect_same standalone

recipe_for static
torchrun --master-port $((20000 + RANDOM % 9000)) --nproc-per-node 2 --no-python "$longhand" train static.yaml \
  >static.log 2>&1
expect_code $? 0 "torchrun --master-port"
expect_same static

# A wrong recipe is torchrun's root cause in longhand's words: it reads the error file that longhand leaves.
echo "run: [" >wrong.yaml
torchrun --standalone --nproc-per-node 2 --no-python "$longhand" train wrong.yaml >wrong.log 2>&1
expect_code $? 1 "torchrun with a wrong recipe"
sed -n '/Root Cause/,$p' wrong.log | grep -q 'wrong.yaml' || { fail "no root cause in longhand's words"; cat wrong.log; }
[ "$bad" -eq 0 ] || for run in standalone static; do echo "--- $run"; grep -v "^step" "$run.log"; done
exit "$bad"
