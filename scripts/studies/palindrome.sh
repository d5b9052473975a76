#!/usr/bin/env bash
# SP-KV, appendix G: reversing 32 integers across an instruction. Full attention and SP-KV with a window of 32
# should solve it, a window of 32 alone can't. About 10 minutes on one core.
set -euo pipefail
source "$(dirname "$0")/runs.sh"
recipe=recipes/tasks/palindrome.yaml
seeds="1 2 3"
for seed in $seeds; do
  train "softmax-$seed" $recipe run.seed="$seed"
  train "window-$seed" $recipe run.seed="$seed" "model.mixers={attn: {kind: sliding_window, window: 32}}"
  train "sp_kv-$seed" $recipe run.seed="$seed" "model.mixers={attn: {kind: sp_kv, window: 32}}" \
    'optim.groups=[{pattern: "*.utility.*", lr_multiplier: 5}]'
done
echo "| mixer | loss, mean and range of 3 seeds | answer tokens right | share of remote keys kept |"
echo "|---|---|---|---|"
for mixer in softmax window sp_kv; do
  names=$(for seed in $seeds; do echo "$mixer-$seed"; done)
  density="-"
  [ $mixer = sp_kv ] && density=$(mean_range kv_density $names)
  echo "| $mixer | $(mean_range loss $names) | $(mean_range accuracy $names) | $density |"
done
