#!/bin/bash
# virtual_nodes.sh - virtual nodes on one machine, and Open MPI over them by TCP. For tests; needs root.
# A node n<i> has its own network, host name, PIDs, /proc, /sys, SysV IPC, /dev/shm and
# $VIRTUAL_NODES_DIR/local (its disk: kept over a crash). They are joined by a bridge in "head", where
# mpirun runs: a network of its own, but the host's PIDs. The host's network is untouched.
#
#   virtual_nodes.sh up [N]               create n1..nN (default 2)
#   virtual_nodes.sh run NP [OPTS] CMD..  mpirun NP ranks over the live nodes (OPTS: mpirun's)
#   virtual_nodes.sh exec NODE CMD..      run a command on a node, or on head
#   virtual_nodes.sh link NODE up|down    plug / unplug the network cable
#   virtual_nodes.sh shape NODE QDISC..   both directions: tbf rate 100mbit burst 64kb latency 50ms
#                                  or netem delay 10ms loss 1% (if the kernel has it); none: remove
#   virtual_nodes.sh lag NODE MS [LOSS%]  delay and loss each way by a user-space relay (python3), without netem; 0: remove
#   virtual_nodes.sh crash NODE           power off: silence on the network, SIGKILL to all it runs. mpirun
#                                  then hangs for minutes unless OMPI_MCA_oob_tcp_keepalive_time,
#                                  _intvl and _probes are small; see also VIRTUAL_NODES_TIMEOUT
#   virtual_nodes.sh boot NODE            power on again
#   virtual_nodes.sh status | down
#
# Environment: VIRTUAL_NODES_DIR (state; default ${TMPDIR:-/tmp}/virtual-nodes-$UID), VIRTUAL_NODES_NET (first
# three octets; 10.213.0), VIRTUAL_NODES_TIMEOUT (seconds for run; 300).
set -euo pipefail
self=$(readlink -f "$0")
D=${VIRTUAL_NODES_DIR:-${TMPDIR:-/tmp}/virtual-nodes-$UID}
NET=${VIRTUAL_NODES_NET:-10.213.0}

die() { echo "virtual_nodes.sh: $*" >&2; exit 1; }

# A pid file holds the pid and its start time: a reused pid is never taken for ours.
starttime() { # PID, if it runs (a zombie does not: not every init reaps)
  local s
  { s=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
  set -- ${s##*) } # the fields after the name
  [ "$1" != Z ] && echo "${20}"
}
save_pid() { echo "$2 $(starttime "$2")" >"$D/$1.pid.new" && mv "$D/$1.pid.new" "$D/$1.pid"; }
pid_of() {
  local p t
  { read -r p t <"$D/$1.pid"; } 2>/dev/null && [ "$(starttime "$p")" = "$t" ] && echo "$p"
}
kill_9() { # NAME..: kill, and wait until gone
  local n p i
  for n; do
    if p=$(pid_of "$n"); then
      kill -9 "$p" || :
      for ((i = 0; i < 100; i++)); do pid_of "$n" >/dev/null || break; sleep 0.05; done
    fi
    rm -f "$D/$n.pid"
  done
}
nodes() { local i; for ((i = 1; i <= $(<"$D/count"); i++)); do pid_of "n$i" >/dev/null && echo "n$i"; done; return 0; }

enter() { # NODE CMD.. (replaces this shell)
  local pid n=$1 ns=(--net --uts --mount); shift
  pid=$(pid_of "$n") || die "$n is not up"
  [ "$n" = head ] || ns+=(--ipc --pid)
  exec nsenter -t "$pid" "${ns[@]}" --wdns="$PWD" "$@"
}
on() { (enter "$@"); }

# First process of a node (its PID 1) or of head: keeps the namespaces and reaps orphans.
node_init() { # NAME
  local pid
  read -r pid _ </proc/self/stat # the host's pid: the host's /proc is still mounted
  echo "$1" >/proc/sys/kernel/hostname
  mount --bind "$D/hosts" /etc/hosts
  if [ "$1" != head ]; then
    mount -t proc proc /proc
    mount -t sysfs sysfs /sys
    mount -t tmpfs tmpfs /dev/shm
    mount --bind "$D/disk/$1" "$D/local"
  fi
  echo "$pid" >"$D/$1.init"
  while :; do sleep 3600 & wait $!; done
}
hold() { # NAME
  local n=$1 i
  rm -f "$D/$n.init"
  setsid unshare --net --uts --mount --ipc --pid --fork --kill-child bash -c \
    "$(declare -f node_init); D=$(printf %q "$D"); set -e; node_init $n" </dev/null >>"$D/log" 2>&1 &
  for ((i = 0; i < 100; i++)); do [ -s "$D/$n.init" ] && break; sleep 0.05; done
  [ -s "$D/$n.init" ] || die "cannot start $n: $(tail -n 3 "$D/log")"
  save_pid "$n" "$(<"$D/$n.init")"
}
mac() { printf '02:00:00:00:00:%02x' "$1"; } # fixed: a new one would be lost on the others' ARP caches
boot() { # NODE
  mkdir -p "$D/disk/$1"
  hold "$1"
  on head ip link add "$1" type veth peer name eth0 address "$(mac "${1#n}")" netns "$(pid_of "$1")"
  on head ip link set "$1" master br0 up
  on "$1" ip link set lo up
  on "$1" ip addr add "$(<"$D/net").${1#n}/24" dev eth0
  on "$1" ip link set eth0 up
}
unlag() { # NODE
  pid_of "lag-$1" >/dev/null || return 0
  kill_9 "lag-$1"
  on head ip link del "lag-$1"
  ! pid_of "$1" >/dev/null || on head ip link set "$1" master br0
}
crash() { # NODE
  unlag "$1"
  ! pid_of "$1" >/dev/null || on head ip link del "$1" || :
  kill_9 "$1"
}
down() {
  local f n
  [ -d "$D" ] || return 0
  for f in "$D"/lag-*.pid "$D"/n*.pid "$D/head.pid"; do n=${f##*/}; kill_9 "${n%.pid}"; done
  rm -rf "$D"/{disk,local,hosts,log,net,count,*.pid,*.init}
  rmdir --ignore-fail-on-non-empty "$D"
}
need_node() { [[ ${1:-} =~ ^n[0-9]+$ ]] && [ -d "$D/disk/$1" ] || die "no node '${1:-}'"; }

# Relay between two interfaces: each frame waits, or is lost. With vnet headers, so that segmentation
# and checksum offloads of veth survive.
relay='
import collections, random, select, socket, sys, time
delay, loss = float(sys.argv[3]) / 1e3, float(sys.argv[4]) / 100
def port(name):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    s.setsockopt(263, 15, 1)  # SOL_PACKET, PACKET_VNET_HDR
    for opt in 32, 33:        # SO_SNDBUFFORCE, SO_RCVBUFFORCE
        s.setsockopt(socket.SOL_SOCKET, opt, 1 << 26)
    s.bind((name, 0))
    s.setblocking(False)
    return s
a, b = port(sys.argv[1]), port(sys.argv[2])
queue = collections.deque()
while True:
    wait = max(0, queue[0][0] - time.monotonic()) if queue else None
    for s in select.select([a, b], [], [], wait)[0]:
        for _ in range(64):
            try: frame, addr = s.recvfrom(1 << 17)
            except OSError: break
            if addr[2] != 4 and random.random() >= loss:  # 4: PACKET_OUTGOING
                queue.append((time.monotonic() + delay, b if s is a else a, frame))
    while queue and queue[0][0] <= time.monotonic():
        _, out, frame = queue.popleft()
        try: out.send(frame)
        except OSError: pass
'

cmd=${1:-}; shift || :
case $cmd in
up)
  n=${1:-2}
  [ "$UID" = 0 ] || die "needs root"
  [[ $n =~ ^[0-9]+$ ]] && ((n >= 1 && n <= 250)) || die "up: 1 to 250 nodes"
  pid_of head >/dev/null && die "already up in $D"
  mkdir -p "$D"; D=$(readlink -f "$D")
  ok=; trap '[ -n "$ok" ] || down' EXIT
  mkdir -p "$D"/{disk,local}; chmod 1777 "$D/local"
  echo "$n" >"$D/count"; echo "$NET" >"$D/net"
  { echo "127.0.0.1 localhost"; echo "$NET.254 head"; for ((i = 1; i <= n; i++)); do echo "$NET.$i n$i"; done; } >"$D/hosts"
  hold head
  on head ip link set lo up
  on head ip link add br0 address "$(mac 254)" type bridge
  on head ip addr add "$NET.254/24" dev br0
  on head ip link set br0 up
  for ((i = 1; i <= n; i++)); do boot "n$i"; done
  ok=1
  ;;
run)
  np=${1:?number of ranks}; shift
  mapfile -t live < <(nodes)
  [ ${#live[@]} -gt 0 ] || die "no node is up"
  hosts=$(printf "%s:$(((np + ${#live[@]} - 1) / ${#live[@]}))," "${live[@]}")
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  : "${OMPI_MCA_mpi_yield_when_idle:=1}"; export OMPI_MCA_mpi_yield_when_idle # the nodes share the cores
  # The remote shell enters the node; only head can, so head starts all daemons itself.
  exec timeout -k 10 "${VIRTUAL_NODES_TIMEOUT:-300}" "$self" exec head mpirun -np "$np" --host "${hosts%,}" \
    --bind-to none --mca plm rsh --mca plm_rsh_agent "$self rsh" --mca plm_rsh_no_tree_spawn 1 \
    --mca orte_tmpdir_base "$D/local" "$@"
  ;;
exec) enter "$@" ;;
rsh) n=$1; shift; enter "$n" sh -c "$*" ;;
link) need_node "${1:-}"; on head ip link set "$1" "${2:?up or down}" ;;
shape)
  need_node "${1:-}"; n=$1; shift
  if [ "${1:?qdisc}" = none ]; then
    on "$n" tc qdisc del dev eth0 root || :; on head tc qdisc del dev "$n" root || :
  else
    on "$n" tc qdisc replace dev eth0 root "$@"; on head tc qdisc replace dev "$n" root "$@"
  fi
  ;;
lag)
  need_node "${1:-}"; unlag "$1"; command -v python3 >/dev/null || die "lag needs python3"
  if [ "${2:?milliseconds}" != 0 ] || [ "${3:-0}" != 0 ]; then
    on head ip link add "lag-$1" type veth peer name "bri-$1"
    on head ip link set "lag-$1" up
    on head ip link set "bri-$1" master br0 up
    on head ip link set "$1" nomaster
    setsid nsenter -t "$(pid_of head)" --net python3 -c "$relay" "$1" "lag-$1" "$2" "${3:-0}" </dev/null >>"$D/log" 2>&1 &
    save_pid "lag-$1" $!
  fi
  ;;
crash) need_node "${1:-}"; crash "$1" ;;
boot)
  need_node "${1:-}"; pid_of "$1" >/dev/null && die "$1 is up"
  boot "$1"
  ;;
status)
  pid_of head >/dev/null || { echo "down ($D)"; exit 1; }
  echo "up in $D: $(nodes | tr '\n' ' ')of $(<"$D/count") nodes, $(<"$D/net").0/24"
  on head ip -br link
  ;;
down) down ;;
*) sed -n '2,/^set/{/^set/!p}' "$self" | sed 's/^# \{0,1\}//'; exit 2 ;;
esac
