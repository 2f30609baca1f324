#!/usr/bin/env bash
# The body of every job: bash "$SIBOL_PROJECT/jobs/body/job.sh" COMMAND...
#
# Rendered scripts hold the scheduler's directives and export settings (SIBOL_JOB_*); all that is done is done here, the same under
# Slurm, PBS and without a scheduler. Exit code: 0 done, 75 stopped with a checkpoint (the same job continues), else failed.
set -euo pipefail
export SIBOL_PROJECT=${SIBOL_PROJECT:-$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)}
export SIBOL_JOB_NAME=${SIBOL_JOB_NAME:-sibol}
body=$SIBOL_PROJECT/jobs/body
# shellcheck source=jobs/body/common.sh
source "$body/common.sh"
# shellcheck source=jobs/body/normalise.sh
source "$body/normalise.sh"
# shellcheck source=jobs/body/secrets.sh
source "$body/secrets.sh"
# shellcheck source=jobs/body/container.sh
source "$body/container.sh"
# shellcheck source=jobs/body/environment.sh
source "$body/environment.sh"
# shellcheck source=jobs/body/launch.sh
source "$body/launch.sh"
# shellcheck source=jobs/body/chain.sh
source "$body/chain.sh"

# run_once COMMAND...: the command on the nodes. A run that did not finish gives 75, also where its nodes could not say so: jobs that
# wait for this one to succeed must not start.
run_once() {
    local code=0
    [[ $stop_asked != stop ]] || return 143 # as if TERM had ended it
    clear_marks
    run_on_nodes "$@" || code=$?
    clear_stop
    if ((code == 0)) && [[ -n ${SIBOL_JOB_RUN_DIR:-} && ! -e $SIBOL_JOB_RUN_DIR/DONE ]]; then code=75; fi
    return "$code"
}

# run_job COMMAND...: and again, or by another job, as long as it stops early and gets further.
run_job() {
    local code
    while true; do
        code=0
        run_once "$@" || code=$?
        if ((code != 75)) || [[ ! -e ${SIBOL_JOB_RUN_DIR:-}/REQUEUE ]] || ! may_continue; then return "$code"; fi
        if [[ $SIBOL_JOB_SCHEDULER != none ]]; then
            continue_job ${arguments[@]+"${arguments[@]}"}
            return "$code"
        fi
        SIBOL_JOB_HOP=$((SIBOL_JOB_HOP + 1))
        normalise_deadline "$(date +%s)"
    done
}

# run_shards COMMAND...: the share of the work that is this element's; without a scheduler, one share after the other.
run_shards() {
    local first=$SIBOL_JOB_ARRAY_INDEX last shard code
    require_number SIBOL_JOB_SHARDS 1
    if [[ -z $first && ($SIBOL_JOB_SCHEDULER == none || $SIBOL_JOB_SHARDS == 1) ]]; then
        first=1 last=$SIBOL_JOB_SHARDS
    else
        [[ -n $first ]] || fail "The work is divided into $SIBOL_JOB_SHARDS shares: submit an array (sbatch --array=1-$SIBOL_JOB_SHARDS," \
            "qsub -J 1-$SIBOL_JOB_SHARDS), or set SIBOL_JOB_SHARDS=1."
        require_number SIBOL_JOB_ARRAY_INDEX 1
        ((first <= SIBOL_JOB_SHARDS)) || fail "This is element $first of an array, but the work is divided into $SIBOL_JOB_SHARDS shares." \
            "Number the elements from 1 to $SIBOL_JOB_SHARDS."
        last=$first
    fi
    for ((shard = first; shard <= last; shard++)); do
        code=0
        run_job "$@" --shard "$shard/$SIBOL_JOB_SHARDS" || code=$?
        if ((code != 0)); then return "$code"; fi
    done
}

report() {
    local code=$1 offline
    offline=("${SIBOL_JOB_RUN_DIR:-/nowhere}"/wandb/offline-run-*)
    if [[ -e ${offline[0]} ]]; then
        say "Weights & Biases was offline. From a node with internet: wandb sync $(printf '%q' "$SIBOL_JOB_RUN_DIR")/wandb/offline-run-*"
    fi
    say "$SIBOL_JOB_NAME ($SIBOL_JOB_ID) ends after $SECONDS s with exit code $code"
}

[[ $# -gt 0 ]] || fail "no command. Usage: bash job.sh COMMAND..."
normalise
cd -- "$SIBOL_JOB_SUBMIT_DIR"
say "$SIBOL_JOB_NAME ($SIBOL_JOB_ID) on ${job_hosts[*]}, hop $SIBOL_JOB_HOP${SIBOL_JOB_DEADLINE:+, ends before $(date -d "@$SIBOL_JOB_DEADLINE" '+%F %T')}"
say "command: ${*@Q}"
check_turn
begin_run
arguments=("${@:$# + 1 - ${SIBOL_JOB_ARGUMENTS:-0}}") # what followed the script's name when it was submitted
trap remove_scratch EXIT
catch_signals
load_secrets "${SIBOL_JOB_SECRETS:-}"
prepare_node
if [[ $SIBOL_JOB_SCHEDULER == slurm ]]; then srun_for_nodes; fi
code=0
if [[ -n ${SIBOL_JOB_SHARDS:-} ]]; then
    run_shards "$@" || code=$?
else
    run_job "$@" || code=$?
fi
report "$code"
exit "$code"
