#!/usr/bin/env bash
# A real sshd on this machine, for this test alone: scripts/cluster/ssh.sh starts the same training on two hosts that
# are this one; stopped it says so with 75, and the same command goes on. Every curve equals the plain one.
# usage: ssh.sh LONGHAND
set -uo pipefail
skip() {  # 77: what is not installed or not allowed here can't be tested, and says so
  echo "skipped: $1"
  exit 77
}
longhand=$(realpath "${1:?usage: ssh.sh LONGHAND}")
repository=$(cd "$(dirname "$0")/../.." && pwd)
PATH=$PATH:/usr/sbin
for program in sshd ssh ssh-keygen; do
  command -v "$program" >/dev/null || skip "$program is missing (Debian: openssh-server)"
done
[ "$(id -u)" = 0 ] || skip "sshd needs its folder /run/sshd, which only root can make"
mkdir -p /run/sshd
# shellcheck source=tests/launch/same_run.sh
source "$(dirname "$0")/same_run.sh"
port() { echo $((20000 + RANDOM % 9000)); }
ssh_port=$(port)
for name in host_key user_key; do ssh-keygen -q -t ed25519 -N '' -f "$name"; done
cat >sshd.conf <<END_OF_CONF
Port $ssh_port
ListenAddress 127.0.0.1
HostKey $work/host_key
AuthorizedKeysFile $work/user_key.pub
StrictModes no
PidFile $work/sshd.pid
END_OF_CONF
cat >ssh.conf <<END_OF_CONF
Host *
  Port $ssh_port
  HostName 127.0.0.1
  IdentityFile $work/user_key
  StrictHostKeyChecking no
  UserKnownHostsFile $work/known_hosts
  LogLevel ERROR
END_OF_CONF
"$(command -v sshd)" -f "$work/sshd.conf" -E "$work/sshd.log" || { cat sshd.log; fail "sshd does not start"; exit 1; }
trap 'kill "$(cat "$work/sshd.pid")"; rm -rf "$work"' EXIT
# The script calls ssh; this one knows where.
mkdir bin
printf '#!/bin/sh\nexec %s -F %s/ssh.conf "$@"\n' "$(command -v ssh)" "$work" >bin/ssh
chmod +x bin/ssh
PATH=$work/bin:$PATH
wait_until 10 'ssh -o BatchMode=yes localhost true' 2>/dev/null || skip "sshd lets nobody in: $(tail -n 1 sshd.log)"
export LONGHAND=$longhand NPROC=1

recipe_for whole
PORT=$(port) "$repository/scripts/cluster/ssh.sh" "127.0.0.1 localhost" train "$work/whole.yaml" >whole.log 2>&1
expect_code $? 0 "ssh.sh"
expect_same whole

recipe_for stopped
again=("$repository/scripts/cluster/ssh.sh" "127.0.0.1 localhost" train "$work/stopped.yaml" --resume)
PORT=$(port) "${again[@]}" >stopped.log 2>&1 &
job=$!
wait_until 60 '[ "$(newest_step stopped)" -ge 4 ]' 2>/dev/null || fail "the job does not train"
kill -TERM "$job"  # as Ctrl-C; the shell of a test ignores SIGINT
wait "$job"
expect_code $? 75 "ssh.sh with a signal"
PORT=$(port) "${again[@]}" >>stopped.log 2>&1
expect_code $? 0 "ssh.sh --resume"
expect_same stopped
[ "$bad" -eq 0 ] || tail -n 15 whole.log stopped.log sshd.log
exit "$bad"
