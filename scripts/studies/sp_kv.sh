#!/usr/bin/env bash
# SP-KV on the quickstart's text: how many keys outside the window its gates keep, at which loss beside full
# attention and the window alone; thresholds swept without retraining; gates that nothing learned, as many; and
# the hybrid of local and global heads that its densities suggest; and branches from the trained full attention,
# with everything learning, with its language model frozen, and without gates. Run scripts/quickstart.sh before.
# About half an hour on two cores. Arguments are keys for all runs.
set -euo pipefail
source "$(dirname "$0")/runs.sh"
recipe=recipes/pretrain/sp_kv_cpu.yaml
keys=(eval.sample_tokens=0 eval.every_steps=0 "$@")
other=("${keys[@]}" optim.groups=[] "schedule.gates={}")
train sp_kv $recipe "${keys[@]}"
train softmax $recipe "${other[@]}" "model.mixers={self: {kind: softmax}}"
train window $recipe "${other[@]}" "model.mixers={self: {kind: sliding_window, window: 32}}"
[ -e "$out/hybrid.yaml" ] ||
  "$longhand" recipe hybrid "$out/sp_kv" --global-heads 3 --out "$out/hybrid.yaml" --threads 1 >"$out/hybrid.txt"
train hybrid "$out/hybrid.yaml" "${keys[@]}"
branch=(recipes/pretrain/sp_kv_branch_cpu.yaml "init.path=$out/softmax" "${keys[@]}")
train branch "${branch[@]}"
train frozen "${branch[@]}" \
  "optim.groups=[{pattern: '*', freeze: true}, {pattern: '*.utility.*', freeze: false, lr_multiplier: 5}]"
train dense_branch "${branch[@]}" init.fresh=[] optim.groups=[] "schedule.gates={}" "model.mixers={self: {kind: softmax}}"
echo "| model | loss | keys outside the window |"
echo "|---|---|---|"
echo "| softmax | $(last softmax loss) | 1 |"
echo "| sp_kv, hard gates | $(last sp_kv loss) | $(last sp_kv kv_density) |"
echo "| hybrid, 3 of 8 heads global | $(last hybrid loss) | $(last hybrid kv_density) in its mixed layers |"
echo "| window of 32 | $(last window loss) | 0 |"
echo
echo "| branch from softmax | loss | keys outside the window |"
echo "|---|---|---|"
echo "| full attention | $(last dense_branch loss) | 1 |"
echo "| sp_kv, everything learns | $(last branch loss) | $(last branch kv_density) |"
echo "| sp_kv, language model frozen | $(last frozen loss) | $(last frozen kv_density) |"
echo
echo "| gates of the trained sp_kv model | loss | keys outside the window |"
echo "|---|---|---|"
evaluation() {
  local name=$1
  shift
  "$longhand" eval "$out/sp_kv" --threads 1 "$@" |
    awk -v name="$name" '/^loss/ {loss = $2} /^kv density/ {d = $3}
                         END {printf "| %s | %s | %s |\n", name, loss, d}'
}
for threshold in 0.05 0.1 0.2 0.3 0.5 0.7 0.9 0.95; do
  evaluation "threshold $threshold" --kv-threshold $threshold
done
evaluation "soft" --soft-gates
for control in shuffled random constant; do evaluation "$control" --gate-control $control; done
