#!/usr/bin/env bash
# SP-KV where distant keys count: on C++ code, which names again what it named long before. The headers of the C++
# library and of Eigen, that every machine which builds Longhand has, are 6.9 million tokens; 1600 steps of the study
# sp_kv.sh's model see them twice. Full attention, the window alone and SP-KV, one seed each; then the trained gates at
# other thresholds, and as many that nothing learned.
# A bit under an hour on one core with AMX. Arguments are keys for all runs.
set -euo pipefail
source "$(dirname "$0")/runs.sh"
recipe=recipes/pretrain/sp_kv_cpu.yaml
data=$out/data
if [ ! -e "$data/valid.h5" ]; then
  mkdir -p "$data"
  mapfile -t files < <(find /usr/include/c++ /usr/include/eigen3 -type f -size +2k | LC_ALL=C sort)
  "$longhand" data train-tokenizer "${files[@]}" --output "$data/tokenizer.json" --vocab-size 2048
  "$longhand" data prepare "${files[@]}" --tokenizer "$data/tokenizer.json" --output "$data/train.h5" \
    --valid-output "$data/valid.h5" --valid-fraction 0.03
fi
keys=(eval.sample_tokens=0 eval.every_steps=0 schedule.steps=1600 schedule.warmup_steps=100
  "data.train=[{path: $data/train.h5}]" "data.valid=[$data/valid.h5]" data.tokenizer="$data/tokenizer.json" "$@")
dense=("${keys[@]}" optim.groups=[] "schedule.gates={}")
train sp_kv $recipe "${keys[@]}"
train softmax $recipe "${dense[@]}" "model.mixers={self: {kind: softmax}}"
train window $recipe "${dense[@]}" "model.mixers={self: {kind: sliding_window, window: 32}}"
# row TEXT RUN [OPTION...]: on all held-out files.
row() {
  local text=$1 run=$2
  shift 2
  "$longhand" eval "$out/$run" --threads 1 "$@" |
    awk -v text="$text" '/^loss/ {loss = $2} /^bits per byte/ {bits = $4} /^kv density/ {kept = $3}
                         END {printf "| %s | %s | %s | %s |\n", text, loss, bits, kept}'
}
echo "| model | loss | bits per byte | keys kept outside the window |"
echo "|---|---|---|---|"
row "full attention" softmax
row "sp_kv, hard gates" sp_kv
row "window of 32" window
for threshold in 0.1 0.9 0.99; do row "threshold $threshold" sp_kv --kv-threshold $threshold; done
for control in shuffled random constant; do row "$control" sp_kv --gate-control $control; done
