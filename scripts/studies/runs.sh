# Sourced by the studies: runs of one recipe with other keys, each in a folder of its own below runs/studies.
# A run that is done is not made again, one that was interrupted goes on.
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
longhand=build/release/tools/longhand
[ -x "$longhand" ] || { echo "no $longhand: run scripts/build.sh release longhand first" >&2; exit 1; }
study=$(basename "$0" .sh)
out=runs/studies/$study
mkdir -p "$out"

# train NAME RECIPE [KEY=VALUE...]
train() {
  local folder=$out/$1 recipe=$2 sets=() resume=()
  shift 2
  [ -e "$folder.done" ] && return
  for set in "$@"; do sets+=(--set "$set"); done
  [ -d "$folder/checkpoints" ] && resume=(--resume)
  "$longhand" train "$recipe" "${sets[@]}" --set "run.out_dir=$folder" --set run.threads=1 "${resume[@]}" >"$folder.log" 2>&1 ||
    { tail -5 "$folder.log" >&2; exit 1; }
  touch "$folder.done"
}

# last NAME KEY: a number of the run's last evaluation, to four digits after the point.
last() {
  grep '"kind":"eval"' "$out/$1/metrics.jsonl" | tail -1 | grep -o "\"$2\":[-0-9.e]*" | head -1 | cut -d: -f2 |
    awk '{printf "%.4f\n", $1}'
}

# mean_range KEY NAME...: mean and range over runs.
mean_range() {
  local key=$1
  shift
  for name in "$@"; do last "$name" "$key"; done |
    awk '{s += $1; if (NR == 1 || $1 < a) a = $1; if (NR == 1 || $1 > b) b = $1}
         END {printf "%.4f (%.4f to %.4f)", s / NR, a, b}'
}
