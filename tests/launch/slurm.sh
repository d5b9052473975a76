#!/usr/bin/env bash
# A Slurm cluster of two nodes on this machine (Debian's slurm-wlm and munge), in namespaces of its
# own, runs the same training in every way that the README names: ranks started by srun, the launcher
# under sbatch, stopped by a signal before the time limit, requeued by the administrator, preempted by a job of higher
# priority. Every curve equals the plain one.
# usage: slurm.sh LONGHAND
# shellcheck disable=SC2016  # conditions are evaluated later
set -uo pipefail
skip() {
  echo "skipped: $1"
  exit 77
}
longhand=$(realpath "${1:?usage: slurm.sh LONGHAND}")
repository=$(cd "$(dirname "$0")/../.." && pwd)
if [ -z "${LH_OWN_NAMESPACES:-}" ]; then
  for program in munged slurmctld slurmd srun sbatch scontrol ip unshare; do
    command -v "$program" >/dev/null || skip "$program is missing (Debian: slurm-wlm, munge, iproute2)"
  done
  namespaces=(unshare --pid --fork --kill-child --mount-proc --net --mount --uts)
  "${namespaces[@]}" sh -c 'hostname cluster && mount -t tmpfs none /run &&
    ip link add net0 type veth peer name net1' 2>/dev/null || skip "namespaces and veth devices need root"
  LH_OWN_NAMESPACES=1 exec "${namespaces[@]}" "$0" "$longhand"
fi

# The machine: a network with two addresses, and the cluster's names.
hostname cluster
mount -t tmpfs none /run
ip link set lo up
ip link add net0 type veth peer name net1
for address in 10.88.0.1 10.88.0.2; do ip addr add "$address/24" dev net0; done
ip link set net0 up && ip link set net1 up
# shellcheck source=tests/launch/same_run.sh
source "$(dirname "$0")/same_run.sh"
printf '127.0.0.1 localhost\n10.88.0.1 cluster node0\n10.88.0.2 node1\n' >hosts
mount --bind hosts /etc/hosts

# GPUs and cores are counted, not there: the example asks for 8 and 64 of each node. A requeued job
# waits for cred_expire.
export SLURM_CONF=$work/slurm.conf
cat >"$SLURM_CONF" <<END_OF_CONF
ClusterName=test
SlurmctldHost=cluster(10.88.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$work/munge.socket,cred_expire=6
CredType=cred/munge
SlurmctldPort=16817
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool-%n
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd-%n.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1
GresTypes=gpu
KillWait=60
NodeName=node0 NodeHostname=cluster NodeAddr=10.88.0.1 Port=16820 CPUs=64 Gres=gpu:8
NodeName=node1 NodeHostname=cluster NodeAddr=10.88.0.2 Port=16821 CPUs=64 Gres=gpu:8
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=9 PreemptMode=OFF
END_OF_CONF
for number in 0 1 2 3 4 5 6 7; do touch "gpu$number"; done
echo "Name=gpu File=$work/gpu[0-7]" >gres.conf
echo "CgroupPlugin=cgroup/v1" >cgroup.conf
mkdir state
(umask 077 && head -c 1024 /dev/urandom >munge.key)
munged --force --socket="$work/munge.socket" --key-file="$work/munge.key" --log-file="$work/munged.log" \
  --pid-file="$work/munged.pid" --seed-file="$work/munge.seed" 2>munged.err
slurmctld
slurmd -N node0
slurmd -N node1
wait_until 15 'sinfo -h -o %T | grep -qx idle' || {
  fail "the cluster does not start"
  sinfo
  tail -n 20 slurmctld.log slurmd-node0.log munged.err
  exit 1
}

# srun starts the ranks; longhand reads Slurm's variables.
recipe_for direct
srun --nodes=2 --ntasks-per-node=1 "$longhand" train direct.yaml >direct.log 2>&1
expect_code $? 0 "srun longhand train"
expect_same direct

# The example as it is, stopped three times: as --signal does it before the time limit, when the script
# queues the job again, then by the administrator, then to make room for an urgent job.
state() {
  scontrol show job "${1:-$job}" | grep -o "JobState=[A-Z_]*\|Restarts=[0-9]*\|Reason=[A-Za-z]*\|[A-Z][a-z]*Time=[^ ]*" |
    tr '\n' ' '
}
recipe_for batch
ln -s "$repository/scripts" scripts
export LONGHAND=$longhand NPROC=1
job=$(sbatch --parsable --output=batch.log scripts/cluster/slurm_sbatch.sh batch.yaml)
wait_until 30 '[ -e batch/checkpoints/step_00000004 ]' || fail "the job does not train: $(state)"
scancel --batch --signal=USR1 "$job"
wait_until 40 'state | grep -q "JobState=PENDING.*Restarts=1"' || fail "not queued again: $(state)"
grep -q "saved; queued again" batch.log || fail "the script says nothing of saving"
stopped_at=$(newest_step batch)
wait_until 60 '[ "$(newest_step batch)" -gt $((stopped_at + 2)) ]' || fail "not resumed: $(state)"
scontrol requeue "$job"
wait_until 60 'state | grep -q Restarts=2' || fail "not requeued: $(state)"
stopped_at=$(newest_step batch)
wait_until 60 '[ "$(newest_step batch)" -gt $((stopped_at + 2)) ]' || fail "not resumed a second time: $(state)"
urgent=$(sbatch --parsable --partition=urgent --nodes=2 --exclusive --output=urgent.log --wrap 'echo room')
wait_until 40 'state "$urgent" | grep -q JobState=COMPLETED' || fail "no room for the urgent job: $(state "$urgent")"
grep -q room urgent.log || fail "the urgent job did nothing"
wait_until 120 'state | grep -q "JobState=COMPLETED.*Restarts=3"' || fail "not completed: $(state)"
[ "$(grep -c '\[resume\] from step' batch.log)" -eq 3 ] || fail "not resumed three times"
[ "$(grep -c 'saved; queued again' batch.log)" -eq 3 ] || fail "not saved three times"
expect_same batch
[ "$bad" -eq 0 ] || { grep -v '^step' batch.log; tail -n 40 slurmctld.log; grep -v '^step' direct.log; }
exit "$bad"
