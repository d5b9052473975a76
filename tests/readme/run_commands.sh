#!/usr/bin/env bash
# Runs every ```sh block of README.md in order, in an empty folder that has the repository's recipes
# and configs, with the program on the PATH. usage: run_commands.sh PROGRAM
set -euo pipefail
program=$(realpath "$1")
repository=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin"
ln -s "$program" "$work/bin/longhand"
for item in recipes configs README.md; do ln -s "$repository/$item" "$work/$item"; done
awk '/^```sh$/ { inside = 1; next } /^```$/ { inside = 0 } inside' "$repository/README.md" >"$work/commands"
commands=$(grep -c . "$work/commands")
[ "$commands" -ge 8 ] || { echo "only $commands lines of commands in README.md"; exit 1; }
cd "$work"
PATH="$work/bin:$PATH" bash -euxo pipefail commands
