# shellcheck shell=bash
# The command on the nodes of the job: once on each, with its exit code. Sourced, never run; needs common.sh and container.sh.
# shellcheck disable=SC2154 # job_hosts, job_scratch, container_*, secret_names are set by the files beside this one

stop_asked=       # requeue (time runs out), or stop (somebody wants the job to end)
running=()        # process ids of what this job waits for: shells, each with its command
trap_interrupted= # whether a trap ran since `wait` was called

# ask_to_stop WORD: the stop-file makes the ranks save and leave at the end of their step, whoever started them. What is no run is
# ended, and at every signal: the first may have come before the command could be told.
ask_to_stop() {
    trap_interrupted=yes
    if [[ $1 == stop && -z ${SIBOL_JOB_RUN_DIR:-} ]]; then end_commands; fi
    [[ $stop_asked != stop ]] || return 0
    stop_asked=$1
    say "asked to stop ($1)"
    if [[ -n ${SIBOL_JOB_RUN_DIR:-} ]]; then write_stop "$1" "$SIBOL_JOB_RUN_DIR"; fi
}

# write_stop WORD FOLDER: the second line tells it from a person's, which stays as it is.
write_stop() {
    [[ ! -e $2/STOP ]] || written_by_a_job "$2/STOP" || return 0
    printf '%s\nby job %s\n' "$1" "$SIBOL_JOB_ID" >"$2/.STOP.$$" && mv -f -- "$2/.STOP.$$" "$2/STOP"
}

# Whether a job wrote the stop-file.
written_by_a_job() {
    local lines=()
    if [[ -e $1 ]]; then mapfile -t lines <"$1" || true; fi 2>/dev/null # the run may have just removed it
    [[ ${lines[1]:-} == 'by job '* ]]
}

# TERM to the commands themselves; the shells around them note how they end.
end_commands() {
    local shell children=()
    for shell in ${running[@]+"${running[@]}"}; do
        read -ra children <"/proc/$shell/task/$shell/children" || true
        kill -TERM ${children[@]+"${children[@]}"} 2>/dev/null || true
    done 2>/dev/null
}

# Schedulers signal every process of a job, srun takes TERM as an order to kill, and a person may press Ctrl-C twice: so a signal is
# only noted here, and `stop_asked` remembers it.
catch_signals() {
    trap 'ask_to_stop requeue' USR1
    trap 'ask_to_stop stop' TERM INT HUP
}

# note_exit_code FILE COMMAND...: for the background. bash 5.2 may forget how a child ended when a signal comes while it waits for it,
# and a shell that only sleeps through its command does not.
note_exit_code() {
    local file=$1 code=0
    shift
    trap : USR1 TERM INT HUP # reset in the command
    trap - EXIT
    "$@" || code=$?
    printf '%s' "$code" >"$file"
}

# noted_exit_code FILE: what stands there; a shell that was killed noted nothing.
noted_exit_code() {
    local code
    code=$(cat -- "$1" 2>/dev/null) || true
    printf '%s' "${code:-137}"
}

# run_and_wait COMMAND...: returns its exit code; a signal in between does not end the wait.
run_and_wait() {
    local file=$job_scratch/.exit-code.$HOSTNAME.$BASHPID code
    note_exit_code "$file" "$@" &
    running=("$!")
    while true; do
        trap_interrupted=
        wait "${running[0]}" || true
        if [[ -z $trap_interrupted ]]; then break; fi
    done
    running=()
    code=$(noted_exit_code "$file")
    rm -f -- "$file"
    return "$code"
}

# run_on_nodes COMMAND...: returns the worst exit code.
run_on_nodes() {
    if [[ ${container_runtime} == pyxis ]]; then
        mount_all
        container_options=()
        in_container pyxis "$SIBOL_JOB_IMAGE" "$job_scratch" "$SIBOL_PROJECT/containers/env.allow" "$@"
        # inside, there is nothing to enter any more, and no host's module, program or file of secrets: their variables come along
        SIBOL_JOB_RUNTIME=none SIBOL_JOB_INSIDE=pyxis SIBOL_JOB_MODULES='' SIBOL_JOB_SECRETS='' \
            run_and_wait "${srun_command[@]}" "${container_options[@]}" bash "$SIBOL_PROJECT/jobs/body/node.sh" "$@"
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
    local file rank code=0
    file=$(umask 077 && mktemp "$SIBOL_JOB_SUBMIT_DIR/.sibol-nodes.XXXXXXXX") || fail "$SIBOL_JOB_SUBMIT_DIR cannot be written to."
    write_node_file "$@" >"$file"
    for rank in "${!job_hosts[@]}"; do
        note_exit_code "$job_scratch/.exit-code.$rank" \
            pbs_tmrsh "${job_hosts[rank]}" bash "$SIBOL_PROJECT/jobs/body/node.sh" --from "$file" "$rank" &
        running+=("$!")
    done
    wait_for_nodes || code=$?
    rm -f -- "$file"
    return "$code"
}

# The worst exit code of the nodes. When one node has failed, the others, who may wait for it for ever, are ended after a while.
wait_for_nodes() {
    local rank one code=0 failed_at='' patience_s=${SIBOL_JOB_PATIENCE_S:-60}
    while ((${#running[@]})); do
        for rank in "${!running[@]}"; do
            if kill -0 "${running[rank]}" 2>/dev/null; then continue; fi
            one=$(noted_exit_code "$job_scratch/.exit-code.$rank")
            rm -f -- "$job_scratch/.exit-code.$rank"
            unset "running[rank]"
            if ((one == 0)); then continue; fi
            say "node ${job_hosts[rank]} failed with exit code $one"
            failed_at=${failed_at:-$SECONDS}
            if ((one > code)); then code=$one; fi
        done
        if [[ -n $failed_at ]] && ((${#running[@]} && SECONDS - failed_at >= patience_s)); then
            say "ending the other nodes"
            end_commands
            failed_at=$SECONDS
        fi
        sleep 0.5
    done
    return "$code"
}

# What a node must know, as shell text: our settings, the command, where programs are, what a container would get as well. Each node
# has its own GPUs and its own disk, and reads the file of secrets itself.
write_node_file() {
    local name names
    names=$(allowed_names "$SIBOL_PROJECT/containers/env.allow") || exit 1
    for name in PATH LD_LIBRARY_PATH $(compgen -e SIBOL_) $names; do
        case " TMPDIR TRITON_CACHE_DIR TORCHINDUCTOR_CACHE_DIR MPLCONFIGDIR NUMBA_CACHE_DIR CUDA_VISIBLE_DEVICES NVIDIA_VISIBLE_DEVICES ${secret_names[*]-} " in
        *" $name "*) ;;
        *) if [[ -n ${!name:-} ]]; then printf 'export %s=%q\n' "$name" "${!name}"; fi ;;
        esac
    done
    printf 'cd -- %q\n' "$PWD"
    printf 'node_command=('
    printf '%q ' "$@"
    printf ')\n'
}
