#!/usr/bin/env bash
# Runs a command with a SLURM of two nodes on this machine, and stops it at the end:
#
#   tests/local_slurm.sh pytest -m slow tests/launch/test_slurm.py
#
# Both nodes are daemons here, with a GPU that is none. All of it listens at 127.0.0.1 and keeps its
# files in a folder of its own. It has to be root, as a daemon that starts jobs of others; on Debian
# it installs the packages that are missing. Where it cannot be had, a line says so, and the command
# runs without.
set -euo pipefail

NODES=(purenoise-n1 purenoise-n2)
PACKAGES=(slurmctld slurmd slurm-client munge)
folder=
hosts_changed=
daemons=()

stop() {
    if ((${#daemons[@]})); then
        timeout 5 scancel --partition=main 2>/dev/null || true
        # The daemons of nodes wait for steps, which only a controller can end.
        for _ in {1..30}; do
            if [[ ! $(timeout 5 squeue --noheader 2>/dev/null) ]]; then break; fi
            sleep 0.5
        done
        # A test may have started that of a node again.
        local file
        for file in "$folder"/slurmd-*.pid; do
            if [[ -f $file ]]; then daemons+=("$(<"$file")"); fi
        done
        kill "${daemons[@]}" 2>/dev/null || true
        for _ in {1..20}; do
            if ! kill -0 "${daemons[@]}" 2>/dev/null; then break; fi
            sleep 0.25
        done
        kill -KILL "${daemons[@]}" 2>/dev/null || true
        wait "${daemons[@]}" 2>/dev/null || true
    fi
    # Written in place: in a container the file is often mounted, and cannot be replaced.
    if [[ $hosts_changed ]]; then
        local kept
        kept=$(grep -v "${NODES[*]}" /etc/hosts) && printf '%s\n' "$kept" >/etc/hosts
    fi
    if [[ $folder ]]; then rm -rf "$folder"; fi
}

# Prints why there cannot be one, and fails.
refuse() {
    echo "no SLURM for tests: $*" >&2
    return 1
}

install_packages() {
    if command -v slurmctld slurmd sbatch munged >/dev/null; then return; fi
    command -v apt-get >/dev/null || refuse "not installed, and no apt-get here" || return
    echo "installs ${PACKAGES[*]}" >&2
    local log=$folder/apt.log
    export DEBIAN_FRONTEND=noninteractive
    if ! { timeout 60 apt-get update && timeout 120 apt-get install -y --no-install-recommends \
        "${PACKAGES[@]}"; } >"$log" 2>&1 </dev/null; then
        refuse "cannot be installed: $(tail -n 1 "$log")"
    fi
}

write_files() {
    chmod 755 "$folder"
    mkdir "$folder"/{log,state,spool,munge}
    dd if=/dev/urandom of="$folder/munge/key" bs=128 count=1 2>/dev/null
    chmod 600 "$folder/munge/key"
    local ports host
    read -ra ports < <(python3 -c '
import socket
probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*(probe.getsockname()[1] for probe in probes))')
    host=$(hostname)
    echo "NodeName=$(IFS=,; echo "${NODES[*]}") Name=gpu File=/dev/null" >"$folder/gres.conf"
    cat >"$folder/slurm.conf" <<CONF
ClusterName=purenoise-tests
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${ports[0]}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/log/slurmctld
SlurmdLogFile=$folder/log/slurmd-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,batch_sched_delay=0
GresTypes=gpu
MpiDefault=none
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=10
SlurmdTimeout=30
CompleteWait=0
NodeName=${NODES[0]} NodeHostname=$host NodeAddr=127.0.0.1 Port=${ports[1]} CPUs=8 Gres=gpu:1
NodeName=${NODES[1]} NodeHostname=$host NodeAddr=127.0.0.1 Port=${ports[2]} CPUs=8 Gres=gpu:1
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
}

start() {
    [[ $(id -u) == 0 ]] || refuse "has to be started by root" || return
    folder=$(mktemp -d)
    install_packages || return
    # Under these names the processes of a job look for each other.
    if ! grep -q "${NODES[*]}" /etc/hosts; then
        echo "127.0.0.1 ${NODES[*]}" >>/etc/hosts || refuse "/etc/hosts cannot be written" || return
        hosts_changed=yes
    fi
    write_files
    export SLURM_CONF=$folder/slurm.conf
    munged --foreground --socket="$folder/munge/socket" --key-file="$folder/munge/key" \
        --pid-file="$folder/munge/pid" --log-file="$folder/munge/log" \
        --seed-file="$folder/munge/seed" >/dev/null 2>&1 &
    daemons+=($!)
    for _ in {1..50}; do
        if [[ -S $folder/munge/socket ]]; then break; fi
        sleep 0.1
    done
    slurmctld -D -c >/dev/null 2>&1 &
    daemons+=($!)
    local node
    for node in "${NODES[@]}"; do
        slurmd -D -N "$node" >/dev/null 2>&1 &
        daemons+=($!)
    done
    for _ in {1..40}; do
        if [[ $(timeout 5 sinfo --noheader --format=%D --states=idle 2>/dev/null) == 2 ]]; then
            return
        fi
        sleep 0.5
    done
    tail -n 3 "$folder"/log/* "$folder/munge/log" >&2 || true
    refuse "its nodes do not come up"
}

trap stop EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
if ! start; then unset SLURM_CONF; fi
"$@"
