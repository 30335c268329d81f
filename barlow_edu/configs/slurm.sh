#!/bin/bash
# Two machines with eight GPUs each, for as long as it takes: sbatch slurm.sh imagenet_resnet50
#
# Five minutes before the time is over SLURM sends SIGUSR1 to every process. They end the step, process 0 saves and
# puts the job back into the queue; when it is started again, --auto-resume goes on from the checkpoint. A job that is
# preempted gets SIGTERM: it saves, and SLURM itself requeues it. RUNS must be a folder that all machines see.
#
# Every GPU has a process that srun starts, with the variables that torchrun would set. So the signals reach the
# processes themselves, and not a launcher that hands them on and waits for half a minute only.
#SBATCH --job-name=barlow_edu
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

set -eu
CONFIG=${1:?give a configuration, for instance: sbatch slurm.sh imagenet_resnet50}
shift
RUNS=${RUNS:-runs}
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000)) OMP_NUM_THREADS=1

# exec: the signal must reach Python, not a shell around it.
exec srun --kill-on-bad-exit=1 bash -c '
    export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS
    export LOCAL_WORLD_SIZE=$((SLURM_NTASKS / SLURM_NNODES))
    exec python -m barlow_edu pretrain "$@"
' barlow_edu "$CONFIG" --out "$RUNS/$(basename "$CONFIG" .yaml)-$SLURM_JOB_ID" --auto-resume "$@"
