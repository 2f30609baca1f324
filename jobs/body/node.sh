#!/usr/bin/env bash
# One node of several: srun and pbs_tmrsh start this on each of them.
#
#   node.sh COMMAND...             its rank and environment are Slurm's
#   node.sh --from FILE RANK       they come from a file that the first node wrote
#
# Exit code 0 also for a run that stopped early (75): otherwise the first node to leave would have the others killed.
set -euo pipefail
if [[ $1 == --from ]]; then
    # shellcheck disable=SC1090,SC2154 # written by write_node_file
    source "$2"
    export SIBOL_JOB_NODE_RANK=$3
    # shellcheck disable=SC2154
    set -- "${node_command[@]}"
else
    export SIBOL_JOB_NODE_RANK=${SLURM_NODEID:?srun sets it}
fi
body=$SIBOL_PROJECT/jobs/body
# shellcheck source=jobs/body/common.sh
source "$body/common.sh"
# shellcheck source=jobs/body/secrets.sh
source "$body/secrets.sh"
# shellcheck source=jobs/body/container.sh
source "$body/container.sh"
# shellcheck source=jobs/body/environment.sh
source "$body/environment.sh"
# shellcheck source=jobs/body/launch.sh
source "$body/launch.sh"

# The signals reach the ranks without us; this shell only has to outlive them.
trap 'trap_interrupted=yes' USR1 TERM INT HUP
trap remove_scratch EXIT
load_secrets "${SIBOL_JOB_SECRETS:-}"
prepare_node
enter_container "$@"
code=0
run_and_wait "${container_command[@]}" || code=$?
((code != 75)) || code=0
exit "$code"
