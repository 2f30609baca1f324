#!/usr/bin/env bash
# Installs Slurm and munge from the distribution's packages, for the tests that run real jobs. Does nothing when they are there.
#
#   tests/support/install_slurm.sh
#
# Where it cannot (no root, no apt), it says so and fails; SIBOL_TEST_SLURM=off leaves those tests out, and this with them.
set -euo pipefail

if [[ ${SIBOL_TEST_SLURM:-on} == off ]]; then
    echo "SIBOL_TEST_SLURM=off: the tests of real Slurm are left out"
    exit 0
fi
if command -v slurmctld slurmd munged sbatch >/dev/null; then
    exit 0
fi
if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
    echo "The tests of real Slurm need slurmctld, slurmd and munged, which only root can install (Debian, Ubuntu: slurm-wlm munge)." >&2
    echo "Install them, or leave those tests out: SIBOL_TEST_SLURM=off" >&2
    exit 1
fi
echo "Installing Slurm for the tests"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
if ! { apt-get update -qq && apt-get install -y --no-install-recommends slurm-wlm munge; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    exit 1
fi
rm -f "$log"
