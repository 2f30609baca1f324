# shellcheck shell=bash
# Whether a job is continued by another one, and how. Only on a positive sign: the run folder says REQUEUE, and this job got
# further than the one before. Sourced, never run; needs common.sh.
# shellcheck disable=SC2154 # stop_asked is launch.sh's

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

# continue_job: hands the rest to another job. Where there is no scheduler, the caller runs it again.
continue_job() {
    local hop=$((SIBOL_JOB_HOP + 1)) submitted
    case $SIBOL_JOB_SCHEDULER in
    slurm)
        # A requeued job keeps its id, so what depends on it goes on waiting.
        if scontrol requeue "$SLURM_JOB_ID"; then return; fi
        say "scontrol requeue was refused; submitting anew"
        submitted=$(cd "$SIBOL_JOB_SUBMIT_DIR" && sbatch --parsable ${SLURM_JOB_ACCOUNT:+"--account=$SLURM_JOB_ACCOUNT"} \
            "--export=ALL,SIBOL_JOB_HOP=$hop" "${SIBOL_JOB_SCRIPT:-}") ||
            fail "could not be continued. Submit $(printf '%q' "${SIBOL_JOB_SCRIPT:-the script}") again by hand."
        ;;
    pbs)
        submitted=$(cd "$SIBOL_JOB_SUBMIT_DIR" && qsub -W "depend=afterany:$PBS_JOBID" -v "SIBOL_JOB_HOP=$hop" "${SIBOL_JOB_SCRIPT:-}") ||
            fail "could not be continued. Submit $(printf '%q' "${SIBOL_JOB_SCRIPT:-the script}") again by hand."
        ;;
    esac
    say "continued by job $submitted"
}
