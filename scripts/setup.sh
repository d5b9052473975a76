#!/usr/bin/env bash
# Installs what Longhand needs to build and run on Debian 12 or Ubuntu 22.04 and later.
# Asks apt only for packages that are missing, so that a second run needs no root and no network.
set -euo pipefail

packages=(
  g++ cmake ninja-build ccache pkg-config git
  libfmt-dev libeigen3-dev libdnnl-dev libcli11-dev libyaml-cpp-dev nlohmann-json3-dev
  libgloo-dev libhdf5-dev libpcre2-dev libutf8proc-dev libxxhash-dev zlib1g-dev doctest-dev
  "$@"  # more, asked for by the calling script
)

missing=()
for package in "${packages[@]}"; do
  if ! dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed'; then
    missing+=("$package")
  fi
done
[ ${#missing[@]} -eq 0 ] && exit 0

sudo=""
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "setup: missing packages: ${missing[*]}" >&2
    echo "setup: neither root nor sudo; install them and run again" >&2
    exit 1
  fi
  sudo=sudo
fi
echo "setup: installing ${missing[*]}"
$sudo apt-get update -qq
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends \
  "${missing[@]}" >/dev/null
