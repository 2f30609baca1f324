# shellcheck shell=bash
# The command on the nodes of the job: once on each, with its exit code. Sourced, never run; needs common.sh and container.sh.
# shellcheck disable=SC2154 # job_hosts, job_scratch, container_* are set by the files beside this one

stop_asked=       # requeue (time runs out), or stop (somebody wants the job to end)
running=          # process id of what this job waits for
trap_interrupted= # whether a trap ran since `wait` was called

# ask_to_stop WORD: the stop-file makes the ranks save and leave at the end of their step, whoever started them.
ask_to_stop() {
    trap_interrupted=yes
    [[ $stop_asked != stop ]] || return 0
    stop_asked=$1
    say "asked to stop ($1)"
    if [[ -n ${SIBOL_JOB_RUN_DIR:-} && -d $SIBOL_JOB_RUN_DIR ]]; then
        printf '%s\n' "$1" >"$SIBOL_JOB_RUN_DIR/.STOP.$$" && mv -f "$SIBOL_JOB_RUN_DIR/.STOP.$$" "$SIBOL_JOB_RUN_DIR/STOP"
    elif [[ $1 == stop && -n $running ]]; then
        kill -TERM "$running" 2>/dev/null || true
    fi
}

# Schedulers signal every process of a job, srun takes TERM as an order to kill, and a person may press Ctrl-C twice: so a signal is
# only noted here, and `stop_asked` remembers it.
catch_signals() {
    trap 'ask_to_stop requeue' USR1
    trap 'ask_to_stop stop' TERM INT HUP
}

# run_and_wait COMMAND...: returns its exit code; a signal in between does not end the wait.
run_and_wait() {
    local code
    "$@" &
    running=$!
    while true; do
        trap_interrupted=
        code=0
        wait "$running" || code=$?
        if [[ -z $trap_interrupted ]]; then break; fi
    done
    running=
    return "$code"
}

# run_on_nodes COMMAND...: returns the worst exit code.
run_on_nodes() {
    if [[ ${container_runtime} == pyxis ]]; then
        mount_all
        container_options=()
        in_container pyxis "$SIBOL_JOB_IMAGE" "$job_scratch" "$SIBOL_PROJECT/containers/env.allow" "$@"
        SIBOL_JOB_RUNTIME=none run_and_wait "${srun_command[@]}" "${container_options[@]}" bash "$SIBOL_PROJECT/jobs/body/node.sh" "$@"
    elif ((SIBOL_JOB_NODES == 1)); then
        enter_container "$@"
        run_and_wait "${container_command[@]}"
    elif [[ $SIBOL_JOB_SCHEDULER == slurm ]]; then
        run_and_wait "${srun_command[@]}" bash "$SIBOL_PROJECT/jobs/body/node.sh" "$@"
    else
        run_on_pbs_nodes "$@"
    fi
}

# One task per node. srun neither inherits the number of cores from the batch script nor, under --export=NONE, its environment.
srun_for_nodes() {
    srun_command=(srun "--nodes=$SIBOL_JOB_NODES" "--ntasks=$SIBOL_JOB_NODES" --ntasks-per-node=1 --kill-on-bad-exit=1 --export=ALL)
    if [[ -n ${SLURM_CPUS_PER_TASK:-} ]]; then srun_command+=("--cpus-per-task=$SLURM_CPUS_PER_TASK"); fi
}

# PBS starts a program on another node without our environment, so each node reads it from a file.
run_on_pbs_nodes() {
    command -v pbs_tmrsh >/dev/null || fail "pbs_tmrsh is not on the PATH; jobs of several nodes need it. Load the site's PBS module."
    local file rank pids=() code=0 one
    file=$(umask 077 && mktemp "$SIBOL_JOB_SUBMIT_DIR/.sibol-nodes.XXXXXXXX") || fail "$SIBOL_JOB_SUBMIT_DIR cannot be written to."
    write_node_file "$@" >"$file"
    for rank in "${!job_hosts[@]}"; do
        pbs_tmrsh "${job_hosts[rank]}" bash "$SIBOL_PROJECT/jobs/body/node.sh" --from "$file" "$rank" &
        pids+=("$!")
    done
    for rank in "${!pids[@]}"; do
        one=0
        wait_for "${pids[rank]}" || one=$?
        if ((one != 0)); then say "node ${job_hosts[rank]}: exit code $one"; fi
        if ((one > code)); then code=$one; fi
    done
    rm -f -- "$file"
    return "$code"
}

wait_for() {
    running=$1
    local code
    while true; do
        trap_interrupted=
        code=0
        wait "$running" || code=$?
        if [[ -z $trap_interrupted ]]; then return "$code"; fi
    done
}

# What a node must know, as shell text: our settings, the command, where programs are. No secret: each node reads that file itself.
write_node_file() {
    local name
    for name in PATH PYTHONPATH LD_LIBRARY_PATH PBS_JOBID $(compgen -e SIBOL_); do
        if [[ -n ${!name:-} ]]; then printf 'export %s=%q\n' "$name" "${!name}"; fi
    done
    printf 'cd -- %q\n' "$PWD"
    printf 'node_command=('
    printf '%q ' "$@"
    printf ')\n'
}
