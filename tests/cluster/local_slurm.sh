#!/bin/bash
# local_slurm.sh - a SLURM cluster of virtual nodes n1..nN on one machine, for tests.
#
#   local_slurm.sh up [N] >env && . ./env   start slurmctld and N nodes (default 4); prints export lines
#   local_slurm.sh env                      print them again
#   local_slurm.sh status                   daemons, nodes, jobs
#   local_slurm.sh crash NODE               power a node off (ns mode)
#   local_slurm.sh boot NODE                power it on again (ns mode)
#   local_slurm.sh down                     stop everything, remove the state
#   local_slurm.sh missing                  why ns mode cannot run here; nothing if it can
#
# LOCAL_SLURM_MODE: "ns" puts every slurmd into a node of virtual_nodes.sh (needs root, and virtual_nodes.sh beside
# this script): own host name, network, PIDs, /dev/shm; virtual_nodes.sh's faults work on it. "host" runs all
# slurmd on the bare machine, as any user. Default: ns where possible.
# Other variables: LOCAL_SLURM_DIR (state; default ${TMPDIR:-/tmp}/local-slurm-$UID), LOCAL_SLURM_CPUS
# (per node; 4), LOCAL_SLURM_PORT (host mode: this and the N next ports; 16817).
set -euo pipefail
self=$(readlink -f "$0")
netns=$(dirname "$self")/virtual_nodes.sh
D=${LOCAL_SLURM_DIR:-${TMPDIR:-/tmp}/local-slurm-$UID}
export VIRTUAL_NODES_DIR=$D/nodes SLURM_CONF=$D/slurm.conf

die() { echo "local_slurm.sh: $*" >&2; exit 1; }

missing() { # why this machine cannot run it, if so
  local c
  [ "$UID" = 0 ] || { echo "virtual nodes are made of name spaces, which needs root"; return; }
  for c in slurmctld slurmd sbatch munged mpirun ip nsenter; do
    command -v "$c" >/dev/null || { echo "there is no $c (jobs/install_packages.sh test)"; return; }
  done
  unshare --net --uts --mount --ipc --pid --fork sh -c 'mount -t proc proc /proc && mount -t sysfs sysfs /sys && ip link add type veth' 2>/dev/null \
    || echo "the kernel does not let this container make name spaces"
}

# A pid file holds the pid and its start time: a reused pid is never taken for ours.
starttime() { # PID, if it runs (a zombie does not: not every init reaps)
  local s
  { s=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
  set -- ${s##*) } # the fields after the name
  [ "$1" != Z ] && echo "${20}"
}
pid_of() {
  local p t
  { read -r p t <"$D/run/$1"; } 2>/dev/null && [ "$(starttime "$p")" = "$t" ] && echo "$p"
}
spawn() { # NAME CMD..
  local n=$1; shift
  setsid "$@" </dev/null >>"$D/log/$n.out" 2>&1 &
  echo "$! $(starttime $!)" >"$D/run/$n"
}
stop() { # NAME..: TERM, KILL after 5 s
  local n p i
  for n; do
    if p=$(pid_of "$n"); then
      kill "$p" || :
      for ((i = 0; i < 50; i++)); do pid_of "$n" >/dev/null || break; sleep 0.1; done
      ! pid_of "$n" >/dev/null || kill -9 "$p" || :
    fi
    rm -f "$D/run/$n"
  done
}
try() { timeout 10 "$@" 2>/dev/null; }
within() { # SECONDS CMD..: repeat CMD until it is true
  local end=$((SECONDS + $1)); shift
  until "$@"; do [ $SECONDS -lt $end ] || return 1; sleep 0.1; done
}
mode() { cat "$D/mode" 2>/dev/null; }

munge_works() { try munge -n -S "$D/munge/socket" >/dev/null; }
all_idle() { [ "$(try sinfo -h -o '%D %t')" = "$(<"$D/count") idle" ]; }
node_idle() { [ "$(try sinfo -h -n "$1" -o %t)" = idle ]; }
no_jobs() { [ -z "$(try squeue -h)" ]; }

start_slurmd() { # NODE
  rm -rf "$D"/{spool,tmp}/"$1" # a crash leaves sockets there on which a requeued step would fail
  mkdir -p "$D/spool/$1" "$D/tmp/$1"; chmod 1777 "$D/tmp/$1"
  if [ "$(mode)" = ns ]; then
    "$netns" exec "$1" slurmd -N "$1" </dev/null >>"$D/log/$1.out" 2>&1
  else
    spawn "$1" slurmd -D -N "$1"
  fi
}

write_conf() { # N
  local ctl nodes h; h=$(uname -n); h=${h%%.*}
  if [ "$(mode)" = ns ]; then
    ctl="SlurmctldHost=head(10.213.$(<"$D/subnet").254)"
    nodes="NodeAddr=10.213.$(<"$D/subnet").[1-$1]"
  else
    local p=${LOCAL_SLURM_PORT:-16817}
    ctl="SlurmctldHost=$h(127.0.0.1)"$'\n'"SlurmctldPort=$p"
    nodes="NodeHostname=$h NodeAddr=127.0.0.1 Port=[$((p + 1))-$((p + $1))]"
  fi
  cat >"$SLURM_CONF" <<CONF
ClusterName=local
$ctl
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
# cred_expire is also how long a requeued job waits before it may start again (default 120 s).
AuthInfo=socket=$D/munge/socket,cred_expire=5
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$D/log/jobcomp
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
StateSaveLocation=$D/state
SlurmdSpoolDir=$D/spool/%n
SlurmctldPidFile=$D/spool/slurmctld.pid
SlurmdPidFile=$D/spool/%n.pid
SlurmctldLogFile=$D/log/slurmctld
SlurmdLogFile=$D/log/%n
# Per node: srun --mpi=pmix keeps its directories here, and they would collide.
TmpFS=$D/tmp/%n
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=15
KillWait=5
MinJobAge=3600
NodeName=n[1-$1] $nodes CPUs=${LOCAL_SLURM_CPUS:-4} RealMemory=65536 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
  # slurmd loads a cgroup plugin though nothing uses it; this one needs no cgroup file system.
  echo CgroupPlugin=cgroup/v1 >"$D/cgroup.conf"
  # With the default, mixed, 1 % of srun --mpi=pmix crash in MPI_Init (Slurm 22.05, Open MPI 4.1.4).
  echo PMIxCollFence=tree >"$D/mpi.conf"
}

subnet_up() { # a free 10.213.K.0/24; the link's name is the claim to it
  local k
  for ((k = 1; k < 255; k++)); do
    ip -4 -o addr | grep -qF " 10.213.$k." && continue
    ip link add "slurm$k" type veth peer name "slurm${k}p" 2>/dev/null && { echo $k >"$D/subnet"; return; }
  done
  die "no free subnet"
}
link_up() { # join this host to the nodes' bridge as .253
  local k; k=$(<"$D/subnet")
  ip link set "slurm${k}p" netns "$(cut -d' ' -f1 "$VIRTUAL_NODES_DIR/head.pid")"
  "$netns" exec head ip link set "slurm${k}p" master br0 up
  ip addr add "10.213.$k.253/24" dev "slurm$k"
  ip link set "slurm$k" up
}

print_env() {
  echo "export SLURM_CONF=$(printf %q "$SLURM_CONF")"
  [ "$UID" != 0 ] || echo "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"
  # The nodes share the cores: no busy waiting, no pinning.
  echo "export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_hwloc_base_binding_policy=none"
  if [ "$(mode)" = ns ]; then
    echo "export VIRTUAL_NODES_DIR=$(printf %q "$VIRTUAL_NODES_DIR")"
    echo "export OMPI_MCA_orte_tmpdir_base=$(printf %q "$VIRTUAL_NODES_DIR/local")"
  else # one host name for all nodes: shared-memory segments of different nodes would collide
    echo "export OMPI_MCA_btl=tcp,self"
  fi
}

up() { # N
  [ ! -e "$D/mode" ] || die "already up, or not taken down, in $D"
  [[ $1 =~ ^[0-9]+$ ]] && (($1 >= 1 && $1 <= 250)) || die "up: 1 to 250 nodes"
  mkdir -p "$D"; D=$(readlink -f "$D"); VIRTUAL_NODES_DIR=$D/nodes SLURM_CONF=$D/slurm.conf
  [ ${#D} -le 60 ] || die "the path of LOCAL_SLURM_DIR is too long for sockets under it"
  ok=; trap '[ -n "$ok" ] || down' EXIT
  mkdir -p "$D"/{log,run,munge,state,spool,tmp}
  local m=${LOCAL_SLURM_MODE:-} i
  if [ -z "$m" ]; then
    m=host
    [ -n "$(missing)" ] || m=ns
  fi
  echo "$1" >"$D/count"
  echo "$m" >"$D/mode"

  (umask 077; head -c 128 /dev/urandom >"$D/munge/key")
  spawn munged munged --foreground --force --num-threads=2 --key-file="$D/munge/key" --socket="$D/munge/socket" \
    --pid-file="$D/munge/pid" --log-file="$D/log/munged" --seed-file="$D/munge/seed"
  within 10 munge_works || die "munged does not answer: $(tail -n 3 "$D/log/munged.out")"
  if [ "$m" = ns ]; then
    subnet_up
    VIRTUAL_NODES_NET=10.213.$(<"$D/subnet") "$netns" up "$1" >&2
    link_up
  fi
  write_conf "$1"
  if [ "$m" = ns ]; then spawn slurmctld "$netns" exec head slurmctld -D -c; else spawn slurmctld slurmctld -D -c; fi
  for ((i = 1; i <= $1; i++)); do start_slurmd "n$i"; done
  within 30 all_idle || { tail -n 4 "$D"/log/n* >&2; die "the nodes did not come up"; }
  ok=1
}

down() {
  [ -d "$D" ] || return 0
  local f
  if [ "$(mode)" = ns ]; then
    "$netns" down
    [ ! -e "$D/subnet" ] || ip link del "slurm$(<"$D/subnet")" 2>/dev/null || :
  elif pid_of slurmctld >/dev/null; then # here the jobs would outlive slurmd
    try squeue -h -o %A | xargs -r timeout 10 scancel 2>/dev/null || :
    within 15 no_jobs || echo "local_slurm.sh: some jobs may still run" >&2
  fi
  for f in "$D"/run/n*; do stop "${f##*/}"; done
  stop slurmctld munged
  rm -rf "$D"/{log,run,munge,state,spool,tmp,slurm.conf,cgroup.conf,mpi.conf,count,subnet,mode}
  rmdir --ignore-fail-on-non-empty "$D"
}

status() {
  pid_of slurmctld >/dev/null || { echo "down ($D)"; return 1; }
  echo "up in $D, $(mode) mode, slurmctld pid $(pid_of slurmctld), munged pid $(pid_of munged)"
  try sinfo -N -o '%N %t %C %E'
  try squeue
}

cmd=${1:-}; shift || :
case $cmd in
up) up "${1:-4}"; print_env ;;
env) [ -e "$D/mode" ] || die "down ($D)"; print_env ;;
status) status ;;
crash | boot)
  [ "$(mode)" = ns ] || die "$cmd: in ns mode only"
  "$netns" "$cmd" "${1:?node}"
  [ "$cmd" = crash ] || { start_slurmd "$1"; within 30 node_idle "$1" || die "$1 is not idle"; }
  ;;
down) down ;;
missing) missing ;;
*) sed -n '2,/^set/{/^set/!p}' "$self" | sed 's/^# \{0,1\}//'; exit 2 ;;
esac
