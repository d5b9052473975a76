#!/bin/sh
# Runs every benchmark, ours and PyTorch's in turn on the same machine, and writes the table.
#   scripts/bench.sh [TABLE.md]        (default: tests/bench/RESULTS.md)
# PYTHON names a Python with torch (pip install torch==2.13.0); without torch only Longhand runs.
set -eu
cd "$(dirname "$0")/.."
table=${1:-tests/bench/RESULTS.md}
python=${PYTHON:-python3}
out=build/bench
mkdir -p "$out"
: >"$out/results.jsonl"

scripts/build.sh release
have_torch=no
if "$python" -c 'import torch' 2>/dev/null; then have_torch=yes; else
  echo "bench: $python has no torch: PyTorch is left out (set PYTHON)" >&2
fi

# run NAME COMMAND...: appends the JSON line that the command prints, with its name and command.
run() {
  name=$1
  shift
  echo "bench: $name: $*" >&2
  line=$("$@" 2>"$out/$name.log" | tail -n 1)
  if [ -z "$line" ]; then  # a way of PyTorch's that this machine does not have
    echo "bench: $name failed: $(tail -n 1 "$out/$name.log")" >&2
    return 0
  fi
  printf '{"name": "%s", "command": "%s", "result": %s}\n' "$name" "$*" "$line" >>"$out/results.jsonl"
}
torch() {
  [ "$have_torch" = yes ] || return 0
  name=$1
  shift
  run "$name" "$python" scripts/bench_pytorch.py --json "$@"
}

bench=build/release/tests/bench
for dtype in f32 bf16; do
  run "longhand-train-$dtype" "$bench/bench_model" train $dtype
  torch "torch-train-$dtype-eager" --mode train --dtype $dtype --steps 4 --warmup 2
  torch "torch-train-$dtype-compile" --mode train --dtype $dtype --steps 4 --warmup 2 --compile
  run "longhand-train-$dtype-again" "$bench/bench_model" train $dtype
done
torch torch-train-bf16-master-eager --mode train --dtype bf16 --bf16-style master --steps 4 --warmup 2
torch torch-train-bf16-master-compile --mode train --dtype bf16 --bf16-style master --steps 4 \
  --warmup 2 --compile
for dtype in f32 bf16; do
  run "longhand-decode-$dtype" "$bench/bench_model" decode $dtype
  torch "torch-decode-$dtype-eager" --mode decode --dtype $dtype
  torch "torch-decode-$dtype-compile" --mode decode --dtype $dtype --compile
  torch "torch-decode-$dtype-frozen" --mode decode --dtype $dtype --compile --freezing
  run "longhand-decode-$dtype-again" "$bench/bench_model" decode $dtype
done
"$bench/bench_attention" >"$out/attention.txt"
if [ "$have_torch" = yes ]; then "$python" scripts/bench_table.py "$out" >"$table"; else
  cat "$out/results.jsonl" "$out/attention.txt"
fi
"$bench/bench_variants" >"$out/variants.txt"
if [ "$have_torch" = yes ]; then
  printf '\n## Variants of attention (`bench_variants`)\n\n```\n%s\n```\n' \
    "$(cat "$out/variants.txt")" >>"$table"
else
  cat "$out/variants.txt"
fi
launch=$(scripts/bench_launch.sh)
if [ "$have_torch" = yes ]; then printf '\n%s\n' "$launch" >>"$table"; else echo "$launch"; fi
