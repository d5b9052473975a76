#!/usr/bin/env bash
# What the launcher costs: seconds from the command to the first training step, of one process and of
# a job of several, alternating. The fastest starts say most on a busy machine.
# usage: scripts/bench_launch.sh [PROCESSES=4] [REPEATS=11]
set -euo pipefail
cd "$(dirname "$0")/.."
processes=${1:-4} repeats=${2:-11}
longhand=$PWD/build/release/tools/longhand
[ -x "$longhand" ] || { echo "bench_launch: build first: scripts/build.sh release longhand" >&2; exit 1; }
recipe=$PWD/recipes/smoke/smoke_cpu.yaml
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$longhand" data prepare README.md --output "$work/train.h5" --valid-output "$work/valid.h5" \
  --valid-last-bytes 4000 >/dev/null 2>&1

# Seconds until the line of the first step.
first_step() {
  rm -rf "$work/run"
  : >"$work/out"  # else the line of the start before could be found
  local begin end
  begin=$(date +%s%N)
  "$@" train "$recipe" --set "run.out_dir=$work/run" --set run.device=cpu --set schedule.steps=3 \
    --set "data.train=[{path: $work/train.h5}]" --set "data.valid=[$work/valid.h5]" \
    >"$work/out" 2>"$work/err" &
  local pid=$!
  until grep -q '^step 1/' "$work/out"; do
    kill -0 $pid 2>/dev/null || { cat "$work/err" >&2; return 1; }
    sleep 0.005
  done
  end=$(date +%s%N)
  wait $pid
  echo $(((end - begin) / 1000000))
}
median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

for ((i = 0; i < repeats; ++i)); do
  first_step "$longhand" >>"$work/alone"
  first_step "$longhand" launch --nproc-per-node "$processes" -- >>"$work/together"
done
fastest() { sort -n | head -n 1; }
alone=$(median <"$work/alone") together=$(median <"$work/together")
alone_fastest=$(fastest <"$work/alone") together_fastest=$(fastest <"$work/together")
echo "## Start of a job"
echo
echo "Command: \`scripts/bench_launch.sh $processes $repeats\`; date: $(date -u +%F);" \
  "commit $(git rev-parse --short HEAD); device: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)," \
  "$(nproc) threads, load average $(cut -d ' ' -f 1 /proc/loadavg) (1 minute)."
echo
echo "| processes | ms to the first step, median of $repeats | fastest |"
echo "|---|---|---|"
echo "| 1, without the launcher | $alone | $alone_fastest |"
echo "| $processes, with the launcher | $together | $together_fastest |"
echo "| difference | $((together - alone)) | $((together_fastest - alone_fastest)) |"
