#!/usr/bin/env bash
# Compiles every kernel for sm_80 and sm_90a (files that end in _sm90.cu for sm_90a only), fails on
# warnings, spills, stack frames and serialised wgmma, and compares registers and shared memory of every
# kernel with kernels/resources.md. --update rewrites the table. Exit 77 where there is no nvcc.
set -euo pipefail
cd "$(dirname "$0")/.."
table=kernels/resources.md
nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
if [ ! -x "$nvcc" ]; then
  echo "SKIPPED: nvcc not found, kernels were not compiled for a device"
  exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
launcher=$(command -v ccache || true)
export nvcc launcher work

compile() {  # one file: its listing goes to $work/<name>.log
  local file=$1 log
  log=$work/$(echo "$file" | tr / _).log
  local targets=(-gencode=arch=compute_90a,code=sm_90a)
  [[ $file == *_sm90.cu ]] || targets+=(-gencode=arch=compute_80,code=sm_80)
  if ! $launcher "$nvcc" -std=c++20 -O3 "${targets[@]}" -Xptxas -v -I. -c "$file" -o "$log.o" \
    >"$log" 2>&1; then
    echo "$file does not compile:" && cat "$log" && return 1
  fi
  if grep -E 'warning|C75[0-9][0-9]' "$log"; then
    echo "$file: warnings" && return 1
  fi
}
export -f compile
find kernels -name '*.cu' | sort | xargs -P "$(nproc)" -I{} bash -c 'compile {}'

{
  echo "# Registers and static shared memory per kernel"
  echo
  echo "From ptxas ($("$nvcc" --version | sed -n 's/.*release \([0-9.]*\),.*/CUDA \1/p')), written by"
  echo "\`scripts/kernel_resources.sh --update\` and checked by the test of that name. No kernel spills or"
  echo "has a stack frame. Dynamic shared memory is in the header comment of each file."
  echo
  echo "| file | kernel | registers sm_80 | sm_90a | static shared bytes |"
  echo "|---|---|---|---|---|"
  for file in $(find kernels -name '*.cu' | sort); do
    c++filt <"$work/$(echo "$file" | tr / _).log" | awk -v file="${file#kernels/}" '
      /Compiling entry function/ {
        name = $0; sub(/.*entry function ./, "", name); arch = name
        sub(/. for .sm_[0-9a]+.$/, "", name); sub(/.* for ./, "", arch); sub(/.$/, "", arch)
        gsub(/lh::kernels::|\(anonymous namespace\)::|xpu::|void /, "", name)
        sub(/\([^()]*(\([^()]*\)[^()]*)*\)$/, "", name); gsub(/\(int\)|\(bool\)/, "", name)
        gsub(/\|/, "", name); gsub(/> >/, ">>", name)
      }
      /bytes stack frame/ {
        if ($0 !~ / 0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads/) {
          print "SPILL " file " " name " (" arch "):" $0
        }
      }
      /Used [0-9]+ registers/ {
        match($0, /Used [0-9]+/); used = substr($0, RSTART + 5, RLENGTH - 5)
        shared = 0
        if (match($0, /[0-9]+ bytes smem/)) shared = substr($0, RSTART, RLENGTH - 11)
        registers[name, arch] = used; bytes[name] = shared
        if (!(name in seen)) { seen[name] = 1; names[++count] = name }
      }
      END {
        for (i = 1; i <= count; i++) {
          n = names[i]; old = (n, "sm_80") in registers ? registers[n, "sm_80"] : "-"
          print "| " file " | `" n "` | " old " | " registers[n, "sm_90a"] " | " bytes[n] " |"
        }
      }' | sort -V
  done
} >"$work/table.md"

if grep '^SPILL' "$work/table.md"; then
  echo "kernels must neither spill nor have a stack frame"
  exit 1
fi
if [ "${1:-}" = --update ]; then
  cp "$work/table.md" "$table"
  exit 0
fi
if ! diff -u "$table" "$work/table.md"; then
  echo "$table is not what the compiler says: look at the change, then run scripts/kernel_resources.sh --update"
  exit 1
fi
echo "$(grep -c '^| .*cu |' "$table") kernels compile for sm_80 and sm_90a without spills"
