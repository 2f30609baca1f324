#!/usr/bin/env bash
# A command in the container as jobs run it: the same mounts, variables and options, through the same functions.
#
#   containers/run_in_container.sh [--runtime auto|apptainer|enroot|pyxis|none] [--image FILE] [--mount SRC:DST[:ro]]...
#                                  [--secrets FILE] [--dry-run] [--] COMMAND...
#
# The project and the folder it is called from are mounted where they are. --dry-run prints the command and the names of the
# variables that go in. Exit code: the command's.
set -euo pipefail
SIBOL_PROJECT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
export SIBOL_PROJECT
body=$SIBOL_PROJECT/jobs/body
# shellcheck source=jobs/body/common.sh
source "$body/common.sh"
# shellcheck source=jobs/body/secrets.sh
source "$body/secrets.sh"
# shellcheck source=jobs/body/container.sh
source "$body/container.sh"
# shellcheck source=jobs/body/environment.sh
source "$body/environment.sh"

usage() { sed -n '4,5s/^# *//p' "${BASH_SOURCE[0]}"; }

SIBOL_JOB_RUNTIME=${SIBOL_JOB_RUNTIME:-auto}
dry_run='' secrets=${SIBOL_JOB_SECRETS:-}
while [[ $# -gt 0 ]]; do
    case $1 in
    --runtime | --image | --mount | --secrets)
        [[ $# -gt 1 ]] || fail "$1 needs a value."
        case $1 in
        --runtime) SIBOL_JOB_RUNTIME=$2 ;;
        --image) SIBOL_JOB_IMAGE=$2 ;;
        --mount) refuse_newline "The mount" "$2" && SIBOL_JOB_MOUNTS=${SIBOL_JOB_MOUNTS:+$SIBOL_JOB_MOUNTS$'\n'}$2 ;;
        --secrets) secrets=$2 ;;
        esac
        shift 2
        ;;
    --dry-run) dry_run=yes && shift ;;
    --help | -h) usage && exit 0 ;;
    --) shift && break ;;
    -*) fail "unknown option $1. $(usage)" ;;
    *) break ;;
    esac
done
[[ $# -gt 0 ]] || fail "no command. $(usage)"

trap remove_scratch EXIT
load_secrets "$secrets"
prepare_node
if [[ $container_runtime == pyxis ]]; then
    mount_all
    in_container pyxis "$SIBOL_JOB_IMAGE" "$job_scratch" "$SIBOL_PROJECT/containers/env.allow" "$@"
    command=(srun --nodes=1 --ntasks=1 --export=ALL "${container_options[@]}" "${container_command[@]}")
else
    enter_container "$@"
    command=("${container_command[@]}")
fi
if [[ -n $dry_run ]]; then
    printf '%s\n' "${command[*]@Q}"
    if [[ $container_runtime != none ]]; then printf 'variables: %s\n' "${container_names[*]}"; fi
    exit 0
fi
code=0
"${command[@]}" || code=$?
exit "$code"
