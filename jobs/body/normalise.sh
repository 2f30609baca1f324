# shellcheck shell=bash
# From a scheduler's variables to ours, so that nothing after this file asks which scheduler it is. Sets and exports:
#
#   SIBOL_JOB_ID             the scheduler's id, or our process id
#   SIBOL_JOB_SUBMIT_DIR     where the job was submitted; the command runs there
#   SIBOL_JOB_NODES          how many nodes, SIBOL_JOB_NODE_RANK which of them this is, SIBOL_JOB_RANKS_PER_NODE
#   SIBOL_JOB_MASTER_ADDR    host and port where the ranks of several nodes meet; _MASTER_PORT
#   SIBOL_JOB_ARRAY_INDEX    which element of an array, empty without one
#   SIBOL_JOB_DEADLINE       when the scheduler will end the job, in epoch seconds; empty when nobody will
#   SIBOL_JOB_HOP            how often this job has been continued
#
# and the array `job_hosts`, one name per node. Sourced, never run.

normalise() {
    local began_s
    began_s=$(date +%s)
    job_hosts=()
    require SIBOL_PROJECT SIBOL_JOB_NAME
    [[ -d $SIBOL_PROJECT/jobs/body ]] || fail "SIBOL_PROJECT=$SIBOL_PROJECT is not the project. Submit from its root, or export the path."
    export SIBOL_JOB_SCHEDULER=${SIBOL_JOB_SCHEDULER:-none}
    case $SIBOL_JOB_SCHEDULER in
    slurm) normalise_slurm ;;
    pbs) normalise_pbs ;;
    none) normalise_none ;;
    *) fail "SIBOL_JOB_SCHEDULER=$SIBOL_JOB_SCHEDULER is not known: expected slurm, pbs or none." ;;
    esac
    [[ -d $SIBOL_JOB_SUBMIT_DIR ]] || fail "The folder of submission, $SIBOL_JOB_SUBMIT_DIR, is not there on $(hostname)."
    normalise_nodes
    normalise_deadline "$began_s"
    require_number SIBOL_JOB_HOP 0
    export SIBOL_JOB_ID SIBOL_JOB_SUBMIT_DIR SIBOL_JOB_ARRAY_INDEX SIBOL_JOB_HOP
}

normalise_slurm() {
    [[ -n ${SLURM_JOB_ID:-} ]] || fail "This script was made for Slurm, but SLURM_JOB_ID is not set." \
        "Submit it with sbatch; to run it here and now, use \`sibol submit ... --site local\`."
    require SLURM_SUBMIT_DIR SLURM_JOB_NODELIST
    require_number SIBOL_JOB_WALLTIME_S 1
    SIBOL_JOB_ID=$SLURM_JOB_ID
    SIBOL_JOB_SUBMIT_DIR=$SLURM_SUBMIT_DIR
    SIBOL_JOB_ARRAY_INDEX=${SLURM_ARRAY_TASK_ID:-}
    # A requeued job keeps its id; one that was submitted anew is told its hop.
    SIBOL_JOB_HOP=$((${SIBOL_JOB_HOP:-0} + ${SLURM_RESTART_COUNT:-0}))
    mapfile -t job_hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
}

normalise_pbs() {
    [[ -n ${PBS_JOBID:-} ]] || fail "This script was made for PBS, but PBS_JOBID is not set." \
        "Submit it with qsub; to run it here and now, use \`sibol submit ... --site local\`."
    require PBS_O_WORKDIR PBS_NODEFILE
    require_number SIBOL_JOB_WALLTIME_S 1
    [[ -r $PBS_NODEFILE ]] || fail "PBS_NODEFILE=$PBS_NODEFILE cannot be read."
    SIBOL_JOB_ID=$PBS_JOBID
    SIBOL_JOB_SUBMIT_DIR=$PBS_O_WORKDIR
    SIBOL_JOB_ARRAY_INDEX=${PBS_ARRAY_INDEX:-}
    SIBOL_JOB_HOP=${SIBOL_JOB_HOP:-0}
    # A node stands there once for each of its MPI processes.
    mapfile -t job_hosts < <(awk '!seen[$0]++' "$PBS_NODEFILE")
    # PBS sets it to the number of cores, which each rank would then use for itself.
    unset OMP_NUM_THREADS
}

normalise_none() {
    SIBOL_JOB_ID=$$
    SIBOL_JOB_SUBMIT_DIR=${SIBOL_JOB_SUBMIT_DIR:-$PWD}
    SIBOL_JOB_ARRAY_INDEX=${SIBOL_JOB_ARRAY_INDEX:-}
    SIBOL_JOB_HOP=${SIBOL_JOB_HOP:-0}
    job_hosts=("$(hostname)")
    [[ ${SIBOL_JOB_NODES:-1} == 1 ]] || fail "SIBOL_JOB_NODES=$SIBOL_JOB_NODES, but without a scheduler there is one node." \
        "Run \`sibol train\` on each node with SIBOL_JOB_NODE_RANK, SIBOL_JOB_MASTER_ADDR and SIBOL_JOB_MASTER_PORT set."
}

normalise_nodes() {
    local given=${#job_hosts[@]} digits=${SIBOL_JOB_ID%%.*}
    digits=${digits//[!0-9]/}
    SIBOL_JOB_NODES=${SIBOL_JOB_NODES:-$given}
    require_number SIBOL_JOB_NODES 1
    ((SIBOL_JOB_NODES == given)) || fail "The job was rendered for $SIBOL_JOB_NODES nodes, but $SIBOL_JOB_SCHEDULER gave $given: ${job_hosts[*]}." \
        "Ask for one task (Slurm) or one chunk (PBS, place=scatter) per node."
    if [[ -z ${SIBOL_JOB_RANKS_PER_NODE:-} && ${SIBOL_JOB_GPUS_PER_NODE:-0} != 0 ]]; then
        SIBOL_JOB_RANKS_PER_NODE=$SIBOL_JOB_GPUS_PER_NODE
    fi
    SIBOL_JOB_NODE_RANK=0 # the batch script runs on the first node
    SIBOL_JOB_MASTER_ADDR=${job_hosts[0]}
    # Slurm may name a node otherwise than its network does.
    getent hosts "$SIBOL_JOB_MASTER_ADDR" >/dev/null || SIBOL_JOB_MASTER_ADDR=$(hostname)
    # Another port for each job of a shared node, the same on all nodes, and below what the kernel hands out (32768).
    SIBOL_JOB_MASTER_PORT=$((20000 + 10#$digits % 12000))
    export SIBOL_JOB_NODES SIBOL_JOB_NODE_RANK SIBOL_JOB_MASTER_ADDR SIBOL_JOB_MASTER_PORT
    if [[ -n ${SIBOL_JOB_RANKS_PER_NODE:-} ]]; then
        require_number SIBOL_JOB_RANKS_PER_NODE 1
        export SIBOL_JOB_RANKS_PER_NODE
    fi
}

# When the job will be ended. The scheduler's own word where it gives one (Slurm from 23.11 on), else start + walltime.
normalise_deadline() {
    export SIBOL_JOB_DEADLINE=
    if [[ ${SLURM_JOB_END_TIME:-} =~ ^[0-9]+$ && $SIBOL_JOB_SCHEDULER == slurm ]]; then
        SIBOL_JOB_DEADLINE=$SLURM_JOB_END_TIME
    elif [[ -n ${SIBOL_JOB_WALLTIME_S:-} ]]; then
        require_number SIBOL_JOB_WALLTIME_S 1
        SIBOL_JOB_DEADLINE=$(($1 + SIBOL_JOB_WALLTIME_S))
    fi
}
