#!/usr/bin/env bash
# Parallax against softmax attention at equal tokens, under Muon and AdamW, three seeds each, on the quickstart's
# text, with two controls of softmax: as many parameters (a wider MLP) and as much arithmetic (more steps). Then what
# the layers of one Parallax run per optimizer report: correction ratios and stable ranks.
# Run scripts/quickstart.sh before. About 40 minutes on two cores.
set -euo pipefail
source "$(dirname "$0")/runs.sh"
recipe=recipes/pretrain/parallax_cpu.yaml
softmax="model.mixers={local: {kind: sliding_window, window: 128, sinks: 1}, full: {kind: softmax}}"
common=(eval.every_steps=0 eval.sample_tokens=0)
muon=(optim.kind=muon)
adamw=(optim.kind=adamw optim.learning_rate=4.0e-3)
for optimizer in muon adamw; do
  declare -n settings=$optimizer
  for seed in 1 2 3; do
    keys=("${common[@]}" "${settings[@]}" run.seed="$seed")
    train "$optimizer-parallax-$seed" $recipe "${keys[@]}"
    train "$optimizer-softmax-$seed" $recipe "${keys[@]}" "$softmax"
    train "$optimizer-wider-$seed" $recipe "${keys[@]}" "$softmax" model.intermediate_size=683
    train "$optimizer-longer-$seed" $recipe "${keys[@]}" "$softmax" schedule.steps=208 schedule.decay_steps=83
  done
done
echo "| optimizer | model | loss, mean and range of 3 seeds | bits per byte |"
echo "|---|---|---|---|"
for optimizer in muon adamw; do
  for model in softmax wider longer parallax; do
    names=$(for seed in 1 2 3; do echo "$optimizer-$model-$seed"; done)
    echo "| $optimizer | $model | $(mean_range loss $names) | $(mean_range bits_per_byte $names) |"
  done
done
for optimizer in muon adamw; do
  echo
  echo "$optimizer, Parallax, seed 1:"
  echo
  "$longhand" eval "$out/$optimizer-parallax-1" --threads 1 | sed -n '/^layer/,/^all/p' | sed 's/^/    /'
done
