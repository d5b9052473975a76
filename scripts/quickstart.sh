#!/usr/bin/env bash
# From a fresh machine to a trained language model that talks: installs what is missing, builds,
# prepares an English dictionary (GCIDE, Debian package dict-gcide, GPL), trains
# recipes/pretrain/quickstart_cpu.yaml, evaluates, and prints a sample.
# LONGHAND_TEXT=path trains on your own text instead. A second run reuses what is done.
set -euo pipefail
cd "$(dirname "$0")/.."

text=${LONGHAND_TEXT:-/usr/share/dictd/gcide.dict.dz}
packages=(xz-utils)
[ -n "${LONGHAND_TEXT:-}" ] || packages+=(dict-gcide)
scripts/setup.sh "${packages[@]}"
scripts/build.sh release
longhand=build/release/tools/longhand
recipe=recipes/pretrain/quickstart_cpu.yaml
run=runs/quickstart
data=$run/data
mkdir -p "$data"

"$longhand" doctor

# Data made from another text is not reused.
if [ "$(cat "$data/source" 2>/dev/null)" != "$text" ]; then
  rm -rf "$run"
  mkdir -p "$data"
  "$longhand" data train-tokenizer "$text" --output "$data/tokenizer.json" --vocab-size 2048
  "$longhand" data prepare "$text" --tokenizer "$data/tokenizer.json" \
    --output "$data/train.h5" --valid-output "$data/valid.h5" --valid-last-bytes 400000
  echo "$text" >"$data/source"
fi

"$longhand" train "$recipe" --resume
"$longhand" eval "$run" | tee "$run/eval.txt"

# What a general-purpose compressor reaches on the same held-out bytes.
if [[ $text == *.gz || $text == *.dz ]]; then reader="gzip -dcf"; else reader=cat; fi
held=$($reader "$text" | tail -c 400000 | wc -c)
packed=$($reader "$text" | tail -c 400000 | xz -9 --stdout | wc -c)
awk -v model="$(awk '/^bits per byte/ {print $4}' "$run/eval.txt")" -v packed="$packed" \
  -v held="$held" 'BEGIN {
    printf "\nheld-out text: this model %.3f bits per byte, xz -9 %.3f\n", model, 8 * packed / held
  }'

printf '\nA sample:\n'
"$longhand" generate "$run" --tokens 120 --seed 3 --ignore-end
cat <<NEXT

Next:
  $longhand generate $run --prompt "Affection " --tokens 100
  $longhand eval $run
  $longhand recipe explain optim
  $longhand train $recipe --set run.out_dir=runs/mine --set schedule.steps=1000
NEXT
