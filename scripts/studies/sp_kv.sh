#!/usr/bin/env bash
# SP-KV on the quickstart's text: how many keys outside the window its gates keep, at which loss beside full
# attention, the window alone and a predictor that learns nothing, three seeds each; thresholds swept without
# retraining; gates that nothing learned, as many. Then, with one seed, gates that harden in a step, the hybrid of local
# and global heads that densities suggest, and branches from the trained full attention: with everything learning, with
# the language model frozen, and without gates. Run scripts/quickstart.sh before.
# A bit over an hour on one core with AMX. Arguments are keys for all runs.
set -euo pipefail
source "$(dirname "$0")/runs.sh"
recipe=recipes/pretrain/sp_kv_cpu.yaml
keys=(eval.sample_tokens=0 eval.every_steps=0 "$@")
dense=("${keys[@]}" optim.groups=[] "schedule.gates={}")
# A predictor as it is drawn, at a threshold that closes keys from the first hard step on.
random=("optim.groups=[{pattern: '*.utility.*', freeze: true}]" model.mixers.self.threshold=0.99331)
seeds="1 2 3"
for seed in $seeds; do
  train "sp_kv-$seed" $recipe "${keys[@]}" run.seed="$seed"
  train "softmax-$seed" $recipe "${dense[@]}" run.seed="$seed" "model.mixers={self: {kind: softmax}}"
  train "window-$seed" $recipe "${dense[@]}" run.seed="$seed" "model.mixers={self: {kind: sliding_window, window: 32}}"
  train "random-$seed" $recipe "${keys[@]}" run.seed="$seed" "${random[@]}"
done
train sudden-1 $recipe "${keys[@]}" schedule.gates.anneal_steps=1
[ -e "$out/hybrid.yaml" ] ||
  "$longhand" recipe hybrid "$out/sp_kv-1" --global-heads 3 --out "$out/hybrid.yaml" --threads 1 >"$out/hybrid.txt"
train hybrid-1 "$out/hybrid.yaml" "${keys[@]}"
branch=(recipes/pretrain/sp_kv_branch_cpu.yaml "init.path=$out/softmax-1" "${keys[@]}")
train branch-1 "${branch[@]}"
train frozen-1 "${branch[@]}" \
  "optim.groups=[{pattern: '*', freeze: true}, {pattern: '*.utility.*', freeze: false, lr_multiplier: 5}]"
train dense_branch-1 "${branch[@]}" init.fresh=[] optim.groups=[] "schedule.gates={}" "model.mixers={self: {kind: softmax}}"

# row TEXT RUN SEEDS [OPTION...]: mean and range of the loss, and the mean density, on all held-out text.
row() {
  local text=$1 run=$2 of=$3 seed
  shift 3
  for seed in $of; do "$longhand" eval "$out/$run-$seed" --threads 1 "$@"; done |
    awk -v text="$text" '/^loss/ {n++; s += $2; if (n == 1 || $2 < a) a = $2; if (n == 1 || $2 > b) b = $2}
                         /^kv density/ {kept += $3; m++}
                         END {printf "| %s | %.4f", text, s / n; if (n > 1) printf " (%.4f to %.4f)", a, b
                              if (m > 0) printf " | %.3f |\n", kept / m; else print " | |"}'
}
echo "| model | loss | keys kept outside the window |"
echo "|---|---|---|"
row "full attention" softmax "$seeds"
row "sp_kv, hard gates" sp_kv "$seeds"
row "window of 32" window "$seeds"
row "predictor as drawn" random "$seeds"
row "sp_kv, hard in one step" sudden 1
row "hybrid, 3 of 8 heads global" hybrid 1
row "branch: full attention" dense_branch 1
row "branch: sp_kv, everything learns" branch 1
row "branch: sp_kv, language model frozen" frozen 1
echo
echo "| gates of the trained sp_kv models | loss | keys kept outside the window |"
echo "|---|---|---|"
row soft sp_kv "$seeds" --soft-gates
for threshold in 0.05 0.1 0.2 0.3 0.5 0.7 0.9 0.95 0.99; do
  row "threshold $threshold" sp_kv "$seeds" --kv-threshold $threshold
done
for control in shuffled random constant; do row "$control" sp_kv "$seeds" --gate-control $control; done
