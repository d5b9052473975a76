#!/usr/bin/env bash
# A training job on several nodes of a Slurm cluster: sbatch scripts/cluster/slurm_sbatch.sh RECIPE
# Two minutes before the time limit (--signal) and when the job is preempted, the run saves and
# exits with 75; the script then asks Slurm to queue the job again, where Slurm does not do so by itself, and it resumes.
# Where jobs of a partition with a higher PriorityTier preempt this one (PreemptType=preempt/partition_prio,
# PreemptMode=REQUEUE), its own partition needs a GraceTime in which the run can save.
#SBATCH --job-name=longhand
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x_%j.log
set -uo pipefail
recipe=${1:?usage: sbatch slurm_sbatch.sh RECIPE}
# Slurm runs a copy of this file, so its folder is not known: submit from the repository.
here=${SLURM_SUBMIT_DIR:-.}/scripts/cluster

# srun runs in the background, because bash delivers signals only between foreground commands.
# B: signals this shell alone; scancel, preemption and requeue reach the launchers as SIGTERM.
srun --kill-on-bad-exit=0 "$here/slurm_launch.sh" train "$recipe" --resume &
step=$!
trap 'scancel --signal=USR1 "$SLURM_JOB_ID.0"' USR1
trap 'scancel --signal=TERM "$SLURM_JOB_ID.0"' TERM

# wait also returns when a trap has run: wait again until the step has really ended.
while :; do
  wait "$step"
  code=$?
  kill -0 "$step" 2>/dev/null || break
done
if [ "$code" -eq 75 ]; then
  echo "saved; queued again"
  scontrol show job "$SLURM_JOB_ID" | grep -qE 'JobState=(PENDING|REQUEUED|COMPLETING)' ||
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
