# shellcheck shell=bash
# What a node needs before the command starts: modules, a folder on its own disk, caches there, words for programs that must not
# use the internet. Sourced, never run; needs common.sh.
# shellcheck disable=SC2154 # container_runtime is container.sh's

job_scratch=

# load_modules NAME...: in a clean set of modules.
load_modules() {
    [[ $# -gt 0 ]] || return 0
    local initial
    if ! declare -F module >/dev/null; then
        for initial in "${LMOD_PKG:+$LMOD_PKG/init/bash}" /etc/profile.d/lmod.sh /etc/profile.d/modules.sh /etc/profile.d/z00_lmod.sh; do
            # shellcheck disable=SC1090
            if [[ -r $initial ]]; then set +u && source "$initial" && set -u && break; fi
        done
    fi
    declare -F module >/dev/null || fail "The site asks for the modules $*, but $(hostname) has no command \`module\`." \
        "Start the script with \`bash -l\`, or set SIBOL_JOB_MODULES= if they are not needed."
    set +u # their code uses variables that are not set
    module purge
    module load "$@" || fail "module load $* failed. \`module spider NAME\` says what there is."
    set -u
}

# A folder of this job's own, removed at its end, on the node's own disk: where the scheduler says, or the user, for whom TMPDIR may
# be the same in all jobs.
find_scratch() {
    local folder
    for folder in "${SLURM_TMPDIR:-}" "${TMPDIR:-}" /tmp; do
        if [[ -n $folder && -d $folder && -w $folder ]]; then break; fi
    done
    job_scratch=$(mktemp -d "$folder/sibol-job.XXXXXXXX") ||
        fail "No folder can be made below $folder on $(hostname). Set TMPDIR to one on a local disk."
}

remove_scratch() {
    if [[ -n $job_scratch ]]; then rm -rf -- "$job_scratch"; fi
}

# set_caches BASE: temporary files and compiled kernels off shared file systems, where a thousand small files hurt everybody.
set_caches() {
    export TMPDIR=$1 TRITON_CACHE_DIR=$1/cache/triton TORCHINDUCTOR_CACHE_DIR=$1/cache/inductor
    export MPLCONFIGDIR=$1/cache/matplotlib NUMBA_CACHE_DIR=$1/cache/numba
}

# Without internet, programs that try it all the same hang until the walltime.
set_offline() {
    if [[ -n ${SIBOL_JOB_OFFLINE_CACHE:-} ]]; then
        [[ -d $SIBOL_JOB_OFFLINE_CACHE ]] || fail "The Hugging Face cache $SIBOL_JOB_OFFLINE_CACHE is not there. Fill it on a login node: sibol stage."
        export HF_HOME=$SIBOL_JOB_OFFLINE_CACHE
    fi
    case ${SIBOL_JOB_INTERNET:-true} in
    true) ;;
    false) export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TRANSFORMERS_OFFLINE=1 WANDB_MODE=offline ;;
    *) fail "SIBOL_JOB_INTERNET=$SIBOL_JOB_INTERNET is not known: expected true or false." ;;
    esac
}

# The project's own code before any other copy of it; without a container its own programs, and in one no package of the host's.
set_paths() {
    if [[ $1 != none ]]; then
        export PYTHONPATH=$SIBOL_PROJECT
        return
    fi
    export PYTHONPATH=$SIBOL_PROJECT${PYTHONPATH:+:$PYTHONPATH}
    if [[ -d $SIBOL_PROJECT/.venv/bin ]]; then export PATH=$SIBOL_PROJECT/.venv/bin:$PATH; fi
}

# prepare_node: all of the above, as the job's settings say. Sets `container_runtime`.
prepare_node() {
    local modules=()
    read -ra modules <<<"${SIBOL_JOB_MODULES:-}"
    load_modules ${modules[@]+"${modules[@]}"}
    find_scratch
    set_offline
    choose_runtime "${SIBOL_JOB_RUNTIME:-none}" "${SIBOL_JOB_IMAGE:-}"
    if [[ $container_runtime == none ]]; then set_caches "$job_scratch"; else set_caches /tmp; fi
    set_paths "${SIBOL_JOB_INSIDE:-$container_runtime}" # pyxis starts us inside already
}

# The project, the folder the job runs in, the run, the caches, and what the job was given besides.
mount_all() {
    local mount
    add_mount "$SIBOL_PROJECT:$SIBOL_PROJECT"
    add_mount "$PWD:$PWD"
    if [[ -n ${SIBOL_JOB_RUN_DIR:-} ]]; then
        make_folders "$SIBOL_JOB_RUN_DIR"
        mount=$(cd -- "$SIBOL_JOB_RUN_DIR" && pwd)
        [[ $mount/ == "$PWD"/* ]] || add_mount "$mount:$mount"
    fi
    if [[ -n ${HF_HOME:-} && -d $HF_HOME ]]; then add_mount "$HF_HOME:$HF_HOME"; fi
    while IFS= read -r mount; do
        if [[ -n $mount ]]; then add_mount "$mount"; fi
    done <<<"${SIBOL_JOB_MOUNTS:-}"
}

# enter_container COMMAND...: sets `container_command`.
enter_container() {
    if [[ $container_runtime != none ]]; then mount_all; fi
    in_container "$container_runtime" "${SIBOL_JOB_IMAGE:-}" "$job_scratch" "$SIBOL_PROJECT/containers/env.allow" "$@"
}
