#!/usr/bin/env bash
# Parallax against softmax attention at equal tokens, under Muon and AdamW, three seeds each, on the quickstart's
# text, with two controls of softmax: as many parameters (a wider MLP) and as much arithmetic (more steps), and with two
# other probes: zero at first, and gated, which shows whether training opens the gate. Then what the layers of the
# Parallax runs report.
# Run scripts/quickstart.sh before.
set -euo pipefail
source "$(dirname "$0")/runs.sh"
recipe=recipes/pretrain/parallax_cpu.yaml
softmax="model.mixers={local: {kind: sliding_window, window: 128, sinks: 1}, full: {kind: softmax}}"
zero="model.mixers={local: {kind: parallax, window: 128, sinks: 1, zero_probe: true}, full: {kind: parallax, zero_probe: true}}"
gated="model.mixers={local: {kind: parallax, window: 128, sinks: 1, probe_gate: true}, full: {kind: parallax, probe_gate: true}}"
# Of 178.4 to 155.4 GFLOP a step (longhand recipe plan --vocabulary 2048, where a sequence is one document, the most
# that Parallax can cost): 1.148 times the steps, and of the decay.
longer=(schedule.steps=230 schedule.decay_steps=92)
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
    train "$optimizer-longer-$seed" $recipe "${keys[@]}" "$softmax" "${longer[@]}"
    train "$optimizer-zero_probe-$seed" $recipe "${keys[@]}" "$zero"
    train "$optimizer-gated-$seed" $recipe "${keys[@]}" "$gated"
  done
done
echo "| optimizer | model | loss, mean and range of 3 seeds | bits per byte |"
echo "|---|---|---|---|"
for optimizer in muon adamw; do
  for model in softmax wider longer parallax zero_probe gated; do
    names=$(for seed in 1 2 3; do echo "$optimizer-$model-$seed"; done)
    echo "| $optimizer | $model | $(mean_range loss $names) | $(mean_range bits_per_byte $names) |"
  done
done
echo
echo "Means over layers:"
for optimizer in muon adamw; do
  for model in parallax zero_probe gated; do
    for seed in 1 2 3; do
      "$longhand" eval "$out/$optimizer-$model-$seed" --threads 1 |
        awk -v run="$optimizer-$model-$seed" '/^layer/ {$1 = ""; names = $0} /^all/ {$1 = run; print "run" names; print}'
    done
  done
done
