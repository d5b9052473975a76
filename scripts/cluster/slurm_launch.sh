#!/usr/bin/env bash
# One launcher per node of a Slurm step: srun --ntasks-per-node=1 slurm_launch.sh PROGRAM [ARGUMENTS]
# PROGRAM is any program or one of longhand's commands. Settings: NPROC (workers per node, default
# one per GPU), PORT (default from the job id, so that jobs sharing a node do not meet), LONGHAND
# (the binary).
set -euo pipefail
: "${SLURM_JOB_ID:?start this with srun}" "${SLURM_STEP_NODELIST:?start this with srun}"
head=$(scontrol show hostnames "$SLURM_STEP_NODELIST" | head -n 1)
# A requeued job must not meet what is left of its former self: the restart count is part of the id.
exec "${LONGHAND:-longhand}" launch \
  --nnodes "$SLURM_STEP_NUM_NODES" \
  --node-rank "$SLURM_NODEID" \
  --nproc-per-node "${NPROC:-auto}" \
  --rdzv-backend c10d \
  --rdzv-endpoint "$head:${PORT:-$((20000 + SLURM_JOB_ID % 9000))}" \
  --rdzv-conf "is_host=$((SLURM_NODEID == 0))" \
  --rdzv-id "$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}" \
  --grace 100 \
  -- "$@"
