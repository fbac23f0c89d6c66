#!/usr/bin/env bash
# A sweep over the nodes of a Slurm job: sbatch --export=ALL,GRID=grids/default.toml,STORE=/shared/store harness/slurm.sh
#SBATCH --job-name=normorder
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=12:00:00
set -euo pipefail
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# Every node runs this; the first one starts Ray's head and the sweep, the others join, and all end with the sweep.
srun ray symmetric-run --address "$first:6379" --min-nodes "$SLURM_JOB_NUM_NODES" --num-cpus "$SLURM_CPUS_PER_TASK" -- \
    normorder sweep "$GRID" --store "$STORE" --address auto
