#!/usr/bin/env bash
# Starts a job with mpirun, either way:
#   scripts/cluster/mpi.sh launchers HOSTFILE PROGRAM [ARGUMENTS]   one launcher per host (restarts,
#                                                                   one root cause, no orphans)
#   scripts/cluster/mpi.sh ranks HOSTFILE PROGRAM [ARGUMENTS]       mpirun starts the ranks itself;
#                                                                   longhand reads its variables
# HOSTFILE has Open MPI's format, "host slots=8". Settings: PORT, LONGHAND (the binary).
set -euo pipefail
mode=${1:?usage: mpi.sh launchers|ranks HOSTFILE PROGRAM [ARGUMENTS]}
hostfile=${2:?usage: mpi.sh launchers|ranks HOSTFILE PROGRAM [ARGUMENTS]}
shift 2
longhand=${LONGHAND:-longhand}
port=${PORT:-29400}
hosts=$(grep -cv '^[[:space:]]*\(#\|$\)' "$hostfile")
head=$(awk '!/^[[:space:]]*(#|$)/ { print $1; exit }' "$hostfile")

case $mode in
  launchers)
    # OMPI_COMM_WORLD_RANK exists only in the started processes, hence the inner shell.
    # shellcheck disable=SC2016
    exec mpirun --hostfile "$hostfile" --map-by ppr:1:node -np "$hosts" --bind-to none \
      bash -c 'exec "$0" launch --node-rank "$OMPI_COMM_WORLD_RANK" "$@"' "$longhand" \
      --nnodes "$hosts" --nproc-per-node auto --rdzv-endpoint "$head:$port" \
      --rdzv-id "mpi.$$" -- "$@"
    ;;
  ranks)
    # Open MPI does not say where rank 0 runs: the first host of the file, as it is filled first.
    exec mpirun --hostfile "$hostfile" --bind-to none \
      -x "MASTER_ADDR=$head" -x "MASTER_PORT=$port" "$longhand" "$@"
    ;;
  *)
    echo "mpi.sh: expected launchers or ranks, got '$mode'" >&2
    exit 2
    ;;
esac
