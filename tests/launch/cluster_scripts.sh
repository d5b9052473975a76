#!/usr/bin/env bash
# Runs the examples of scripts/cluster on this machine, with stand-ins for srun, scontrol, scancel,
# mpirun and ssh that start processes here with the variables that the real ones set.
# usage: cluster_scripts.sh LONGHAND WORKER
set -uo pipefail
longhand=$(realpath "$1")
worker=$(realpath "$2")
repository=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin"
cd "$work" || exit 1
export PATH="$work/bin:$PATH" WORK=$work
unset RANK WORLD_SIZE LOCAL_RANK "${!SLURM_@}" "${!OMPI_@}"
bad=0
fail() {
  echo "FAILED: $1"
  bad=1
}
expect_code() { [ "$1" -eq "$2" ] || fail "$3: exit code $1, expected $2"; }
expect_line() { grep -qxF -- "$2" "$1" || { fail "no line '$2' in:"; cat "$1"; }; }
stand_in() {
  { echo '#!/usr/bin/env bash'; cat; } >"$work/bin/$1"
  chmod +x "$work/bin/$1"
}

stand_in srun <<'END'
while [[ $1 == --* ]]; do shift; done
trap '' USR1 TERM  # a step is signalled through scancel
pids=() code=0
for node in 0 1; do
  (
    trap - USR1 TERM
    export SLURM_NODEID=$node SLURM_PROCID=$node SLURM_LOCALID=0 SLURM_STEP_NUM_TASKS=2
    export SLURM_STEP_NUM_NODES=2 SLURM_STEP_NODELIST=node[0-1] SLURM_STEP_TASKS_PER_NODE='1(x2)' SLURM_STEP_ID=0
    exec "$@"
  ) &
  pids+=($!)
  echo $! >>"$WORK/launchers"
done
for pid in "${pids[@]}"; do wait "$pid" || code=$?; done
exit "$code"
END
stand_in scontrol <<'END'
if [ "$1" = show ]; then echo 127.0.0.1; else echo "$@" >>"$WORK/scontrol.log"; fi
END
stand_in scancel <<'END'
while read -r pid; do kill -s "${1#--signal=}" "$pid"; done <"$WORK/launchers"
END
stand_in mpirun <<'END'
count=2
while [[ $1 == -* ]]; do
  case $1 in
    -np) count=$2; shift 2 ;;
    -x) export "${2?}"; shift 2 ;;
    *) shift 2 ;;
  esac
done
code=0 pids=()
for ((rank = 0; rank < count; ++rank)); do
  OMPI_COMM_WORLD_RANK=$rank OMPI_COMM_WORLD_SIZE=$count OMPI_COMM_WORLD_LOCAL_RANK=$rank \
    OMPI_COMM_WORLD_LOCAL_SIZE=$count "$@" &
  pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid" || code=$?; done
exit "$code"
END
stand_in ssh <<'END'
while [[ $1 == -* ]]; do [ "$1" = -o ] && shift; shift; done
exec script -qefc "bash -c $(printf %q "$2")" /dev/null  # a terminal, as -tt makes one
END
port() { echo $((20000 + RANDOM % 9000)); }
export LONGHAND=$longhand NPROC=2 SLURM_JOB_ID=$((RANDOM + 100000))

# Slurm, a step that ends well.
srun --ntasks-per-node=1 "$repository/scripts/cluster/slurm_launch.sh" "$worker" say rank >slurm.out 2>slurm.err
expect_code $? 0 slurm_launch.sh
for rank in 0 1 2 3; do expect_line slurm.out "rank $rank/4"; done

# Slurm, the signal before the time limit: saved, queued again. The wrapper puts the test's worker
# in the place of the training run.
cat >longhand_stand_in <<END
#!/usr/bin/env bash
own=()
while [ "\$1" != -- ]; do own+=("\$1"); shift; done
exec "$longhand" "\${own[@]}" -- "$worker" save 0.3 75 mark "$work/marks" up sleep 60
END
chmod +x longhand_stand_in
rm -f launchers
mkdir scripts && ln -s "$repository/scripts/cluster" scripts/cluster
LONGHAND=$work/longhand_stand_in SLURM_SUBMIT_DIR=$work \
  bash "$repository/scripts/cluster/slurm_sbatch.sh" recipe.yaml >batch.out 2>&1 &
batch=$!
for _ in $(seq 200); do
  [ "$(grep -c up marks 2>/dev/null)" = 4 ] && break
  sleep 0.05
done
kill -USR1 "$batch"
wait "$batch"
expect_code $? 75 slurm_sbatch.sh
expect_line scontrol.log "requeue $SLURM_JOB_ID"

# MPI, launchers and ranks.
printf '# hosts\n127.0.0.1 slots=2\nlocalhost slots=2\n' >hosts
CUDA_VISIBLE_DEVICES=0,1 PORT=$(port) \
  "$repository/scripts/cluster/mpi.sh" launchers hosts "$worker" say rank >mpi.out 2>mpi.err
expect_code $? 0 "mpi.sh launchers"
for rank in 0 1 2 3; do expect_line mpi.out "rank $rank/4"; done
LONGHAND=$worker PORT=777 "$repository/scripts/cluster/mpi.sh" ranks hosts env OMPI_COMM_WORLD_RANK env \
  MASTER_ADDR env MASTER_PORT >ranks.out
expect_code $? 0 "mpi.sh ranks"
for line in OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_RANK=1 MASTER_ADDR=127.0.0.1 MASTER_PORT=777; do
  expect_line ranks.out "$line"
done

# ssh: ranks and working folder; a failure's code; a stop saves.
PORT=$(port) "$repository/scripts/cluster/ssh.sh" "127.0.0.1 localhost" "$worker" say "two words" env PWD \
  >ssh.tty 2>ssh.err
expect_code $? 0 ssh.sh
tr -d '\r' <ssh.tty >ssh.out  # what a terminal adds
for rank in 0 1 2 3; do expect_line ssh.out "two words $rank/4"; done
expect_line ssh.out "PWD=$work"
PORT=$(port) "$repository/scripts/cluster/ssh.sh" "127.0.0.1 localhost" "$worker" on 3 exit 4 sleep 60 2>ssh.err
expect_code $? 1 "ssh.sh with a failure"
rm -f marks
PORT=$(port) "$repository/scripts/cluster/ssh.sh" "127.0.0.1 localhost" "$worker" save 0.3 75 \
  mark "$work/marks" up sleep 60 2>ssh.err &
ssh=$!
for _ in $(seq 200); do
  [ "$(grep -c up marks 2>/dev/null)" = 4 ] && break
  sleep 0.05
done
kill -TERM "$ssh"
wait "$ssh"
expect_code $? 75 "ssh.sh with a signal"

# Kubernetes: the commands that the YAML files have, in two pods that are processes here, with the variables that
# the operator or the Job's controller sets. The worker takes the place of the training run, and this machine's
# address that of the headless service.
command_of() { sed -n '/^ *command:/,/^ *\(env\|ports\):/s/^ *- \([^ ]*\).*/\1/p' "$1"; }
value_of() { sed -n "s/^ *$2: *\"\{0,1\}\([0-9]*\)\"\{0,1\} *\$/\1/p" "$1" | head -n 1; }
# pods NAME PROGRAM...: starts both pods of the file; their process ids are left in `pod_ids`.
pods() {
  local name=$1 file=$repository/scripts/cluster/kubernetes_$1.yaml index port words own
  shift
  port=$(port)
  mapfile -t words < <(command_of "$file")
  [ "${words[*]:0:2}" = "longhand launch" ] || fail "$name does not run longhand launch: ${words[*]}"
  [ "${words[*]: -4}" = "-- train /data/recipe.yaml --resume" ] || fail "$name does not train: ${words[*]}"
  own=("${words[@]:1:${#words[@]}-4}")
  own=("${own[@]//longhand-0.longhand/127.0.0.1}")
  pod_ids=()
  for index in 0 1; do
    (
      export PET_MASTER_PORT=$port PET_RDZV_CONF=join_timeout=20
      if [ "$name" = indexed_job ]; then
        export JOB_COMPLETION_INDEX=$index
      else
        # As the operator has it, the master is told that it is localhost.
        master=localhost
        [ "$index" = 0 ] || master=127.0.0.1
        export PET_NNODES=2 PET_NODE_RANK=$index PET_MASTER_ADDR=$master MASTER_ADDR=$master MASTER_PORT=$port
        export RANK=$index WORLD_SIZE=2
        PET_NPROC_PER_NODE=$(value_of "$file" nprocPerNode)
        export PET_NPROC_PER_NODE
      fi
      # shellcheck disable=SC2016  # Kubernetes' way to write a variable
      exec "$longhand" "${own[@]//'$(JOB_COMPLETION_INDEX)'/$index}" "$@"
    ) >"$name.$index.out" 2>"$name.$index.err" &
    pod_ids+=($!)
  done
}
for name in indexed_job pytorchjob; do
  pods "$name" "$worker" say rank
  for id in "${pod_ids[@]}"; do
    wait "$id"
    expect_code $? 0 "kubernetes_$name.yaml"
  done
  # Eight workers in each of two pods, those of pod 0 first.
  for rank in 0 7; do expect_line "$name.0.out" "rank $rank/16"; done
  for rank in 8 15; do expect_line "$name.1.out" "rank $rank/16"; done
  # A pod that is evicted gets SIGTERM: both save.
  rm -f marks
  pods "$name" "$worker" save 0.3 75 mark "$work/marks" up sleep 60
  for _ in $(seq 400); do
    [ "$(grep -c up marks 2>/dev/null)" = 16 ] && break
    sleep 0.05
  done
  kill -TERM "${pod_ids[1]}"
  for id in "${pod_ids[@]}"; do
    wait "$id"
    expect_code $? 75 "kubernetes_$name.yaml, evicted"
  done
done
exit $bad
