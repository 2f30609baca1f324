# shellcheck shell=bash
# Whether a job is continued by another one, and how. Only on a positive sign: the run folder says REQUEUE, and this job got
# further than the one before. Sourced, never run; needs common.sh.
# shellcheck disable=SC2154 # stop_asked is launch.sh's, secret_names is secrets.sh's

# What a person may have set on submission, and PBS does not hand on by itself. Of secrets, the path.
open_names=(SIBOL_JOB_RUNTIME SIBOL_JOB_IMAGE SIBOL_JOB_MODULES SIBOL_JOB_MOUNTS SIBOL_JOB_SHARDS SIBOL_JOB_MAX_HOPS SIBOL_JOB_SECRETS
    SIBOL_JOB_OFFLINE_CACHE SIBOL_JOB_MARGIN_S SIBOL_JOB_PATIENCE_S SIBOL_ACCOUNT)

# The whole number that `marker` gives for a key: {"step": 120, "first_step": 100, ...}.
marker_number() {
    [[ $1 =~ \"$2\":\ *([0-9]+) ]] || return 1
    printf '%s' "${BASH_REMATCH[1]}"
}

# check_turn: where continuations are submitted beforehand, one after another, only the one whose turn it is runs.
# Slurm requeues a job itself, also when a node broke, so there the hop says nothing of the marks.
check_turn() {
    [[ $SIBOL_JOB_SCHEDULER == pbs && -n ${SIBOL_JOB_RUN_DIR:-} ]] && ((SIBOL_JOB_HOP > 0)) || return 0
    if [[ -e $SIBOL_JOB_RUN_DIR/DONE ]]; then
        say "$SIBOL_JOB_RUN_DIR is finished already"
        exit 0
    fi
    [[ -e $SIBOL_JOB_RUN_DIR/REQUEUE ]] || fail "The job before this one left neither DONE nor REQUEUE in $SIBOL_JOB_RUN_DIR: it failed, or was ended."         "See its log, then submit again."
}

# begin_run: the run's folder, where a request to stop is left, without what an earlier job said there. A person's STOP stays.
begin_run() {
    [[ -n ${SIBOL_JOB_RUN_DIR:-} ]] || return 0
    make_folders "$SIBOL_JOB_RUN_DIR"
    clear_marks
    clear_stop
}

# clear_marks: afterwards REQUEUE and DONE are there only if this job's run wrote them. Here and not only in the run itself: a job
# that fails before its run starts would leave them to the one after it.
clear_marks() {
    if [[ -n ${SIBOL_JOB_RUN_DIR:-} ]]; then rm -f -- "$SIBOL_JOB_RUN_DIR/REQUEUE" "$SIBOL_JOB_RUN_DIR/DONE"; fi
}

# clear_stop: removes a STOP that a job wrote, which is for that job's run only.
clear_stop() {
    if [[ -n ${SIBOL_JOB_RUN_DIR:-} ]] && written_by_a_job "$SIBOL_JOB_RUN_DIR/STOP"; then rm -f -- "$SIBOL_JOB_RUN_DIR/STOP"; fi
}

# may_continue: 0 when the job should be continued, else 1; says why not.
may_continue() {
    local marker step first hops=${SIBOL_JOB_MAX_HOPS:-0}
    marker=$(<"$SIBOL_JOB_RUN_DIR/REQUEUE")
    if ! step=$(marker_number "$marker" step) || ! first=$(marker_number "$marker" first_step); then
        say "$SIBOL_JOB_RUN_DIR/REQUEUE names no step and first_step: ${marker@Q}; not continued"
        return 1
    fi
    if [[ $stop_asked == stop ]]; then
        say "stopped at step $step by a signal; not continued"
    elif ((step <= first)); then
        say "stopped at step $step, where it began: it would never end; not continued. Give it more time, or look for what is slow."
    elif ((SIBOL_JOB_HOP >= hops)); then
        if ((hops > 0)); then say "continued $SIBOL_JOB_HOP times already (SIBOL_JOB_MAX_HOPS=$hops); not continued"; fi
        say "stopped at step $step; the same command continues"
    else
        say "stopped at step $step (began at $first); continues, hop $((SIBOL_JOB_HOP + 1)) of $hops"
        return 0
    fi
    return 1
}

# continue_job ARGUMENT...: hands the rest to another job, and it the arguments that the script was submitted with. Where there is no
# scheduler, the caller runs it again.
continue_job() {
    local submitted
    case $SIBOL_JOB_SCHEDULER in
    slurm)
        # A requeued job keeps its id, so what depends on it goes on waiting.
        if scontrol requeue "$SLURM_JOB_ID"; then return; fi
        say "scontrol requeue was refused; submitting anew"
        submitted=$(submit_to_slurm "$@")
        ;;
    pbs) submitted=$(submit_to_pbs) ;;
    esac || fail "could not be continued. Submit $(printf '%q' "${SIBOL_JOB_SCRIPT:-the script}") again by hand."
    say "continued by job $submitted"
}

# In a subshell: sbatch would store the values of secrets with the job's environment. The next job reads them itself.
submit_to_slurm() (
    unset ${secret_names[@]+"${secret_names[@]}"}
    cd -- "$SIBOL_JOB_SUBMIT_DIR" &&
        sbatch --parsable ${SLURM_JOB_ACCOUNT:+"--account=$SLURM_JOB_ACCOUNT"} \
            "--export=ALL,SIBOL_JOB_HOP=$((SIBOL_JOB_HOP + 1))" "${SIBOL_JOB_SCRIPT:-}" "$@"
)

# Variables go by name, so that qsub itself quotes their commas; a line break it cannot carry (of mounts, which the script sets).
submit_to_pbs() {
    local name names=SIBOL_JOB_HOP=$((SIBOL_JOB_HOP + 1)) account=${PBS_ACCOUNT:-${SIBOL_ACCOUNT:-}}
    for name in "${open_names[@]}"; do
        if [[ -n ${!name+set} && ${!name} != *$'\n'* ]]; then names+=,$name; fi
    done
    cd -- "$SIBOL_JOB_SUBMIT_DIR" &&
        qsub -W "depend=afterany:$PBS_JOBID" ${account:+-A "$account"} -v "$names" "${SIBOL_JOB_SCRIPT:-}"
}
