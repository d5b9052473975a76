#!/usr/bin/env bash
# Checks what a reader stumbles over: long files, long lines, tabs, trailing blanks, headers without
# a guard, notes to self.
set -euo pipefail
cd "$(dirname "$0")/.."
bad=0
report() {
  echo "$1"
  bad=1
}
while read -r file; do
  lines=$(wc -l <"$file")
  [ "$lines" -le 500 ] || report "$file: $lines lines; split it (at most 500)"
  while read -r found; do report "$file:$found"; done < <(awk '
    length($0) > 140 { print NR ": more than 140 characters" }
    /\t/ { print NR ": a tab" }
    /[ \r]$/ { print NR ": ends with a blank" }
    /(TODO|FIXME|HACK)/ { print NR ": a note to self; finish it or open an issue" }' "$file")
  case $file in
    kernels/xpu/* | tests/*) ;;
    *.cu) grep -q '^// Roofline' "$file" || report "$file: a kernel without its roofline estimate" ;;
  esac
  case $file in
    *.h | *.cuh) grep -q '^#pragma once' "$file" || report "$file: a header without #pragma once" ;;
  esac
done < <(find src tools tests kernels -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')
exit $bad
