#!/usr/bin/env bash
# One run on a Ray cluster of its own, on the nodes of one Slurm job:
#   sbatch --nodes=4 --gpus-per-node=4 cluster/slurm.sh --name mine seed=7
# Arguments go to jobs/train.py. From the repository root, on a file system that all nodes share.
# The same command again continues a run that was cut off. Variables, all optional:
#   BNCE_OUTPUT     folder of the runs, shared by all nodes   (runs, in the folder of sbatch)
#   BNCE_VENV       environment, seen by all nodes            (.venv, in the folder of sbatch)
#   BNCE_INTERFACE  network interface between the nodes       (the first one with an address)
#   BNCE_PATIENCE   seconds until all nodes must have joined  (300)
#SBATCH --job-name=bnce_dist
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --output=%x-%j.log
set -euo pipefail

export PATH=${BNCE_VENV:-$PWD/.venv}/bin:$PATH
export BNCE_INTERFACE=${BNCE_INTERFACE:-}

# Made for this job and kept in its environment only: no file, no command line, no log.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN

# Print this node's interface and its address.
network() {
  ip -o -4 address show up ${BNCE_INTERFACE:+dev "$BNCE_INTERFACE"} \
    | awk -v any="$BNCE_INTERFACE" '$2 != "lo" || any { sub("/.*", "", $4); print $2, $4; exit }'
}

# Become the head or join it, and stay until the job ends.
start_node() {
  local interface address
  read -r interface address < <(network)
  export GLOO_SOCKET_IFNAME=$interface NCCL_SOCKET_IFNAME=$interface
  local options=(--node-ip-address="$address" --num-cpus="$SLURM_CPUS_PER_TASK" --block)
  if ((SLURM_PROCID == 0)); then
    exec ray start --head --port="${RAY_ADDRESS##*:}" --dashboard-host=127.0.0.1 "${options[@]}"
  fi
  # Until the head is up, and again if this node loses it.
  until ray start --address="$RAY_ADDRESS" "${options[@]}"; do sleep 1; done
}
export -f network start_node

# This script runs on the first node. Away from Ray's own ports, and from those of other jobs.
read -r _ address < <(network)
export RAY_ADDRESS=$address:$((20000 + SLURM_JOB_ID % 10000))

# Since Slurm 22.05 srun may give a task one core, whatever sbatch was asked for, unless it is told.
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=1 bash -c start_node \
  > "$SLURM_JOB_NAME-$SLURM_JOB_ID-ray.log" 2>&1 &
ray=$!
trap 'kill "$ray" 2> /dev/null; wait "$ray" || true' EXIT

# Run a command beside this shell, which could not hear Slurm's signal otherwise.
run() {
  "$@" &
  job=$!
  trap 'kill -TERM "$job"' TERM
  # The signal ends the first wait; what it asked for takes a moment longer.
  wait "$job" || wait "$job"
}

output=${BNCE_OUTPUT:-$PWD/runs}
run python jobs/preflight.py --output "$output" --nodes "$SLURM_NNODES" --wait "${BNCE_PATIENCE:-300}"
run python jobs/train.py --output "$output" "$@"
