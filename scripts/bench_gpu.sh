#!/bin/sh
# Longhand and PyTorch side by side on a GPU, in one command: `longhand bench`, PyTorch's time for each of
# its rows, `longhand bench` again, and the table of ratios.
#   scripts/bench_gpu.sh [FOLDER]        (default: build/bench_gpu; writes JSON, logs and table.md)
# LONGHAND names the program (default: built here for CUDA), PYTHON a Python with torch (without it only
# Longhand runs). BENCH_GROUPS names groups, DEVICE=cpu measures the processor instead; SIZE=toy and QUICK=1 try
# the script out in a minute; RECIPES are those of the group step, SETS their overrides.
set -eu
cd "$(dirname "$0")/.."
case ${1:-} in
  -*) sed -n '2,7s/^# *//p' "$0"; [ "$1" = --help ] && exit 0; exit 2 ;;
esac
out=${1:-build/bench_gpu}
device=${DEVICE:-cuda}
python=${PYTHON:-python3}
mkdir -p "$out"
if [ -z "${LONGHAND:-}" ]; then
  scripts/build.sh cuda longhand
  LONGHAND=build/cuda/tools/longhand
fi
# PyTorch's step uses AdamW, so ours does too.
arguments="${BENCH_GROUPS:-} --device $device --size ${SIZE:-auto} --set optim.kind=adamw"
for recipe in ${RECIPES:-}; do arguments="$arguments --recipe $recipe"; done
for set in ${SETS:-}; do arguments="$arguments --set $set"; done

ours() { # shellcheck disable=SC2086
  "$LONGHAND" bench $arguments --json "$out/$1.json" | tee "$out/$1.txt"
}
rm -f "$out"/ours.json "$out"/ours_again.json "$out"/theirs.json
ours ours
if "$python" -c 'import torch' 2>/dev/null; then
  "$python" scripts/bench_pytorch_rows.py "$out/ours.json" --out "$out/theirs.json" \
    --device "$device" ${QUICK:+--quick} ${NO_COMPILE:+--no-compile} | tee "$out/theirs.txt"
  ours ours_again
else
  echo "bench: $python has no torch: PyTorch is left out (set PYTHON)" >&2
fi
"$python" scripts/bench_table.py "$out" >"$out/table.md"
cat "$out/table.md"
