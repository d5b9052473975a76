#!/usr/bin/env bash
# Starts one launcher per host over ssh: scripts/cluster/ssh.sh "host1 host2 host3" PROGRAM [ARGUMENTS]
# The hosts share this folder (NFS, or copies at the same path) and accept ssh without a password.
# Ctrl-C here reaches every launcher, and the job saves. Settings: NPROC (workers per host, default
# one per GPU), PORT, LONGHAND (the binary). Exits with the worst code of the hosts, 75 when saved.
set -uo pipefail
read -ra hosts <<<"${1:?usage: ssh.sh 'HOST ...' PROGRAM [ARGUMENTS]}"
shift
[ $# -gt 0 ] || { echo "ssh.sh: expected a program after the hosts" >&2; exit 2; }
program=$(printf '%q ' "$@")
id="ssh.$$.$(date +%s)"
pids=()
keys=()
pipes=$(mktemp -d)
trap 'rm -rf "$pipes"' EXIT
for rank in "${!hosts[@]}"; do
  mkfifo "$pipes/$rank"
  exec {key}<>"$pipes/$rank"
  keys+=("$key")
  # -tt: a terminal of its own, so that the launcher gets SIGHUP when the connection ends, and Ctrl-C when we type it.
  # shellcheck disable=SC2029
  ssh -tt -o BatchMode=yes "${hosts[rank]}" "cd $(printf %q "$PWD") && exec ${LONGHAND:-longhand} launch \
    --nnodes ${#hosts[@]} --node-rank $rank --nproc-per-node ${NPROC:-auto} \
    --rdzv-endpoint ${hosts[0]##*@}:${PORT:-29400} --rdzv-conf is_host=$((rank == 0)) --rdzv-id $id \
    -- $program" <"$pipes/$rank" &
  pids+=($!)
done
# Ended by a signal ssh would not wait for the job to save: Ctrl-C goes through the connections.
trap 'for key in "${keys[@]}"; do printf "\003" >&"$key"; done' INT TERM
worst=0
for pid in "${pids[@]}"; do
  while :; do
    wait "$pid"
    code=$?
    kill -0 "$pid" 2>/dev/null || break
  done
  # A failure weighs more than a saved stop, that more than success.
  if [ "$code" -ne 0 ] && { [ "$worst" -eq 0 ] || [ "$worst" -eq 75 ]; }; then worst=$code; fi
done
exit "$worst"
