#!/usr/bin/env bash
# In-context regression and associative recall, the tasks of the LLA paper (arXiv 2510.01450), with softmax
# attention, affine linear attention, Parallax (its probe drawn as the authors do, or zero at the start, which is
# softmax attention) and exact local linear attention in the same decoder. About 45
# minutes on two cores, most of them for exact LLA.
set -euo pipefail
source "$(dirname "$0")/runs.sh"
declare -A mixers=([softmax]="{kind: softmax}" [linear]="{kind: parallax, uniform_weights: true}"
                   [parallax]="{kind: parallax}" [parallax_zero]="{kind: parallax, zero_probe: true}"
                   [lla]="{kind: lla}")
order="softmax linear parallax parallax_zero lla"
for task in regression mqar; do
  for seed in 1 2 3; do
    for mixer in $order; do
      train "$task-$mixer-$seed" recipes/tasks/$task.yaml run.seed="$seed" eval.every_steps=0 \
        "model.mixers={attn: ${mixers[$mixer]}}"
    done
  done
done
echo "| task | mixer | loss, mean and range of 3 seeds | answer tokens right |"
echo "|---|---|---|---|"
for task in regression mqar; do
  for mixer in $order; do
    names=$(for seed in 1 2 3; do echo "$task-$mixer-$seed"; done)
    echo "| $task | $mixer | $(mean_range loss $names) | $(mean_range accuracy $names) |"
  done
done
