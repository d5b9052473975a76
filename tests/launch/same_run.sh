# Sourced by the tests that start one training in several ways: makes a working folder with the data
# and the plain run, and compares others with it. Needs longhand and repository.
# shellcheck shell=bash disable=SC2154
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
unset RANK WORLD_SIZE LOCAL_RANK LH_HOST "${!SLURM_@}" "${!OMPI_@}"
export OMP_NUM_THREADS=1
bad=0
fail() {
  echo "FAILED: $1"
  bad=1
}
expect_code() { [ "$1" -eq "$2" ] || fail "$3: exit code $1, expected $2"; }
# wait_until SECONDS CONDITION
wait_until() {
  local end=$((SECONDS + $1))
  until eval "$2"; do
    [ $SECONDS -lt $end ] || return 1
    sleep 0.1
  done
}
newest_step() { find "$1/checkpoints" -maxdepth 1 -name 'step_*[0-9]' 2>/dev/null | sort | tail -n 1 | sed 's/.*step_0*//'; }

steps=60
# recipe_for RUN: RUN.yaml, whose run goes to the folder RUN.
recipe_for() {
  sed -e "s|^run: .*|run: {name: smoke, seed: 1, out_dir: $work/$1, device: cpu}|" \
    -e "s|runs/smoke/train.h5|$work/train.h5|; s|runs/smoke/valid.h5|$work/valid.h5|" \
    -e "s|^schedule: {steps: 30, |schedule: {steps: $steps, |" \
    -e "s|^checkpoint: .*|checkpoint: {every_steps: 2, keep_last: 2}|" \
    -e "s|sample_tokens: 16|sample_tokens: 0|" "$repository/recipes/smoke/smoke_cpu.yaml" >"$1.yaml"
}
# What a run leaves that does not depend on how fast it went.
result_of() {
  sed 's/,"tokens_per_second".*//' "$1/metrics.jsonl"
  sha256sum <"$1/checkpoints/step_000000$steps/model.safetensors"
}
expect_same() { diff <(result_of plain) <(result_of "$1") || fail "the run $1 differs from the plain one"; }

for i in $(seq 6000); do printf 'word%d ' $((i * i % 97)); done >text.txt
"$longhand" data prepare text.txt --output train.h5 --valid-output valid.h5 --valid-last-bytes 4000 \
  >prepare.log 2>&1 || { cat prepare.log; exit 1; }
recipe_for plain
"$longhand" launch --nproc-per-node 2 -- train plain.yaml >plain.log 2>&1 || { cat plain.log; exit 1; }
