#!/usr/bin/env bash
# A SLURM cluster of one node, this machine, for tests: Debian's slurm-wlm and munge, as root.
#
#   profiles/slurm/one_node.sh start FOLDER
#   profiles/slurm/one_node.sh stop FOLDER
#
# The configuration goes to /etc/slurm, where SLURM's commands look for it: its jobs do not inherit
# SLURM_CONF. FOLDER takes the state and the logs. Two GPUs are counted, none is needed.
set -euo pipefail
action=$1 folder=$(realpath -m "$2") etc=/etc/slurm

start() {
    if [ -e "$etc/slurm.conf" ]; then
        echo "$etc/slurm.conf exists: this machine has a SLURM already. If a test that was killed left it, '$0 stop FOLDER' removes it." >&2
        return 1
    fi
    mkdir -p "$folder"/{state,spool,munge} "$etc"
    dd if=/dev/urandom of="$folder/munge/key" bs=1024 count=1 status=none
    chmod -R go= "$folder/munge"
    munged --key-file="$folder/munge/key" --socket="$folder/munge/socket" --force \
        --pid-file="$folder/munge/munge.pid" --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"
    cat > "$etc/slurm.conf" <<END
ClusterName=test
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
GresTypes=gpu
MpiDefault=none
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=10
MinJobAge=3600
SlurmctldTimeout=10
SlurmdTimeout=10
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=8 RealMemory=64000 Gres=gpu:2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
END
    touch "$folder"/gpu{0,1}  # stand for the device files
    echo "Name=gpu File=$folder/gpu[0-1]" > "$etc/gres.conf"
    slurmctld
    slurmd -N "$(hostname -s)"
    for _ in $(seq 30); do
        [ "$(sinfo -h -o %T)" = idle ] && return
        sleep 1
    done
    echo "the cluster did not start; see $folder/*.log" >&2
    return 1
}

stop() {
    for file in "$folder"/{slurmd,slurmctld,munge/munge}.pid; do
        [ ! -f "$file" ] || kill "$(cat "$file")" || true
    done
    rm -f "$etc"/{slurm,gres}.conf
}

"$action"
