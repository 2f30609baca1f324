#!/usr/bin/env bash
# Resolves requirements.in and dev.in in throw-away environments and writes lock.txt and lock-dev.txt: `make lock`.
#
# Versions of the present lock are kept unless requirements.in says otherwise; UPGRADE=1 forgets them. The lock is resolved on
# the oldest supported Python, because what installs there installs on the newer one; check that with
# `make clean install PYTHON=python3.12`.
set -euo pipefail
cd "$(dirname "$0")"

PYTHON=${PYTHON:-python3.11}
export PIP_DISABLE_PIP_VERSION_CHECK=1
"$PYTHON" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || {
    echo "lock: needs Python 3.11, got PYTHON=$PYTHON. Say where one is: make lock PYTHON=/path/to/python3.11" >&2
    exit 1
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

keep=()
if [[ -z ${UPGRADE:-} && -f lock.txt ]]; then
    # What requirements.in and dev.in name is free to move; pip spells names with - and _ alike.
    awk '{ name = tolower($1); sub(/[=\[].*/, "", name); gsub("_", "-", name) }
         FILENAME != "lock.txt" { if (name !~ /^#/) direct[name] = 1; next }
         /^#/ { next }
         !(name in direct)' requirements.in dev.in lock.txt >"$work/keep.txt"
    keep=(-c "$work/keep.txt")
fi

freeze() { "$work/environment/bin/python" -m pip freeze --all 2>/dev/null | grep -vE '^(torch|pip|wheel)==' | LC_ALL=C sort -f; }

"$PYTHON" -m venv "$work/environment"
"$work/environment/bin/python" -m pip install -q -r torch-cpu.txt -r requirements.in "${keep[@]}"
"$work/environment/bin/python" -m pip check
freeze >"$work/lock.txt"
"$work/environment/bin/python" -m pip install -q -r dev.in -c "$work/lock.txt"
"$work/environment/bin/python" -m pip check
freeze | grep -vxFf "$work/lock.txt" >"$work/lock-dev.txt"

{
    echo "# Everything that is installed, but torch (torch-cpu.txt, torch-gpu.txt). Written by \`make lock\` from requirements.in."
    cat "$work/lock.txt"
} >"$work/lock.out"
{
    echo "# What tests and checks need beside lock.txt. Written by \`make lock\` from dev.in."
    cat "$work/lock-dev.txt"
} >"$work/lock-dev.out"
mv "$work/lock.out" lock.txt
mv "$work/lock-dev.out" lock-dev.txt
wc -l lock.txt lock-dev.txt
