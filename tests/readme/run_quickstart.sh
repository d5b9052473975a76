#!/usr/bin/env bash
# scripts/quickstart.sh from start to end on a small text and few steps, twice: the second run reuses
# what is done. usage: run_quickstart.sh PROGRAM
set -euo pipefail
program=$(realpath "$1")
repository=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for _ in $(seq 12); do cat "$repository/README.md" "$repository"/src/*/*.h; done >"$work/text.txt"
export LONGHAND=$program LONGHAND_TEXT=$work/text.txt LONGHAND_RUN=$work/run LONGHAND_HELD_OUT=20000
export LONGHAND_SET="schedule.steps=6 schedule.batch_tokens=1024 schedule.warmup_steps=1 schedule.decay_steps=2 eval.every_steps=3 log.every_steps=1"
expect() { grep -q -- "$2" "$1" || { cat "$1"; echo "expected: $2"; exit 1; }; }
"$repository/scripts/quickstart.sh" >"$work/first" 2>&1 || { cat "$work/first"; exit 1; }
expect "$work/first" 'done: 6 steps'
expect "$work/first" 'held-out text: this model .* bits per byte, xz -9'
expect "$work/first" 'A sample:'
expect "$work/first" 'Next:'
"$repository/scripts/quickstart.sh" >"$work/second" 2>&1 || { cat "$work/second"; exit 1; }
expect "$work/second" 'from step 6'
if grep -q 'step 1/6' "$work/second"; then echo "the second run trained again"; exit 1; fi
