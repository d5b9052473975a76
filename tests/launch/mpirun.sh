#!/usr/bin/env bash
# Open MPI's mpirun (Debian's openmpi-bin) starts the same training, by hand and through
# scripts/cluster/mpi.sh; every curve equals the plain one.
# usage: mpirun.sh LONGHAND
set -uo pipefail
longhand=$(realpath "${1:?usage: mpirun.sh LONGHAND}")
repository=$(cd "$(dirname "$0")/../.." && pwd)
if ! command -v mpirun >/dev/null || ! mpirun --version | grep -q 'Open MPI'; then
  echo "skipped: Open MPI's mpirun is missing (Debian: openmpi-bin)"
  exit 77
fi
# shellcheck source=tests/launch/same_run.sh
source "$(dirname "$0")/same_run.sh"
# mpirun wants to hear twice that root means it; and this machine may have one core.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_plm_rsh_agent=/bin/false  # everything runs here
echo "localhost slots=2" >hosts
port() { echo $((20000 + RANDOM % 9000)); }

# By hand, without a word of where rank 0 is: on one host there is no doubt.
recipe_for hand
mpirun -np 2 --bind-to none "$longhand" train hand.yaml >hand.log 2>&1
expect_code $? 0 "mpirun longhand train"
expect_same hand

recipe_for ranks
LONGHAND=$longhand PORT=$(port) "$repository/scripts/cluster/mpi.sh" ranks hosts train ranks.yaml >ranks.log 2>&1
expect_code $? 0 "mpi.sh ranks"
expect_same ranks

recipe_for launchers
CUDA_VISIBLE_DEVICES=0,1 LONGHAND=$longhand PORT=$(port) \
  "$repository/scripts/cluster/mpi.sh" launchers hosts train launchers.yaml >launchers.log 2>&1
expect_code $? 0 "mpi.sh launchers"
expect_same launchers

# A rank that dies ends the job; the same command with --resume goes on.
recipe_for killed
mpirun -np 2 --bind-to none "$longhand" train killed.yaml >killed.log 2>&1 &
mpirun=$!
wait_until 30 '[ -e killed/checkpoints/step_00000004 ]' || fail "no checkpoint"
kill -KILL "$(pgrep -P "$mpirun" -f 'longhand train' | tail -n 1)"
wait "$mpirun"
[ $? -ne 0 ] || fail "mpirun returns 0 though a rank was killed"
mpirun -np 2 --bind-to none "$longhand" train killed.yaml --resume >>killed.log 2>&1
expect_code $? 0 "resumed"
grep -q '\[resume\] from step' killed.log || fail "not resumed"
expect_same killed
[ "$bad" -eq 0 ] || for run in hand ranks launchers killed; do echo "--- $run"; grep -v "^step" "$run.log"; done
exit "$bad"
