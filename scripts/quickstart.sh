#!/usr/bin/env bash
# From a fresh machine to a trained language model that talks: installs what is missing, builds,
# prepares an English dictionary (GCIDE, Debian package dict-gcide, GPL), trains
# recipes/pretrain/quickstart_cpu.yaml, evaluates, and prints a sample.
# LONGHAND_TEXT=path trains on your own text instead. A second run reuses what is done. For tests:
# LONGHAND names a built program, LONGHAND_RUN the folder of the run, LONGHAND_SET further --set's,
# LONGHAND_HELD_OUT the bytes of text held out.
set -euo pipefail
cd "$(dirname "$0")/.."

text=${LONGHAND_TEXT:-/usr/share/dictd/gcide.dict.dz}
packages=(xz-utils)
[ -n "${LONGHAND_TEXT:-}" ] || packages+=(dict-gcide)
scripts/setup.sh "${packages[@]}"
[ -n "${LONGHAND:-}" ] || scripts/build.sh release longhand
longhand=${LONGHAND:-build/release/tools/longhand}
recipe=recipes/pretrain/quickstart_cpu.yaml
run=${LONGHAND_RUN:-runs/quickstart}
held_out=${LONGHAND_HELD_OUT:-400000}
data=$run/data
mkdir -p "$data"

"$longhand" doctor

# Data made from another text is not reused.
if [ "$(cat "$data/source" 2>/dev/null)" != "$text" ]; then
  rm -rf "$run"
  mkdir -p "$data"
  "$longhand" data train-tokenizer "$text" --output "$data/tokenizer.json" --vocab-size 2048
  "$longhand" data prepare "$text" --tokenizer "$data/tokenizer.json" \
    --output "$data/train.h5" --valid-output "$data/valid.h5" --valid-last-bytes "$held_out"
  echo "$text" >"$data/source"
fi

sets=(--set "run.out_dir=$run" --set "data.train=[{path: $data/train.h5}]"
  --set "data.valid=[$data/valid.h5]" --set "data.tokenizer=$data/tokenizer.json")
for set in ${LONGHAND_SET:-}; do sets+=(--set "$set"); done
"$longhand" train "$recipe" --resume "${sets[@]}"
"$longhand" eval "$run" | tee "$run/eval.txt"

# What a general-purpose compressor reaches on the same held-out bytes.
if [[ $text == *.gz || $text == *.dz ]]; then reader="gzip -dcf"; else reader=cat; fi
held=$($reader "$text" | tail -c "$held_out" | wc -c)
packed=$($reader "$text" | tail -c "$held_out" | xz -9 --stdout | wc -c)
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
