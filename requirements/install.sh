#!/usr/bin/env bash
# Installs the project into a virtual environment from the lock: `make install` and `make test` call it.
#
#   VENV=.venv TORCH=cpu|gpu PYTHON=... requirements/install.sh [dev]
#
# Nothing is resolved anew (the lock is complete) and nothing is compiled. A stamp that names the lock's content is written
# last, so an interrupted installation is taken up again and a finished one costs milliseconds. All of pip's output is in
# $VENV/install.log; the terminal gets progress, and every warning and error that says something.
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=${VENV:-.venv}
TORCH=${TORCH:-cpu}
CPU_INDEX=https://download.pytorch.org/whl/cpu
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PYTHONNOUSERSITE=1 PYTHONUNBUFFERED=1

fail() {
    printf 'install: %s\n' "$*" >&2
    exit 1
}

# Tried by running it: a name on the PATH may be a shim for a Python that is not there.
usable() { "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null; }

find_python() {
    if [[ -n ${PYTHON:-} ]]; then
        usable "$PYTHON" || fail "PYTHON=$PYTHON is not a Python 3.11 or 3.12 that can make virtual environments." \
            "Name another one, or leave PYTHON unset. (Debian and Ubuntu keep that ability in the package python3-venv.)"
        echo "$PYTHON"
        return
    fi
    local candidate
    for candidate in python3.11 python3.12 python3 python; do
        if usable "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    fail "no Python 3.11 or 3.12 that can make virtual environments on the PATH (tried python3.11, python3.12, python3, python)." \
        "Install one, or say where it is: make install PYTHON=/path/to/python3.11"
}

# pip's stream as a short account: how many of how many packages, then whatever is neither progress nor known noise.
account() {
    awk -v total="$1" -v terminal="$([[ -t 1 ]] && echo 1 || echo 0)" '
        /^WARNING: Location .* is ignored/ { next }
        /^(Collecting|Processing|Obtaining) |^Requirement already satisfied: / {
            seen += 1
            name = $1 == "Requirement" ? $4 : $2
            sub(/.*\//, "", name)
            if (terminal) printf "\r\033[K  %d of %d  %s", seen, total, name
            else if (seen % 25 == 0) printf "  %d of %d\n", seen, total
            fflush(); next
        }
        /^Installing collected packages/ && total > 1 { printf "%s  unpacking\n", terminal ? "\r\033[K" : ""; fflush(); next }
        /^(WARNING|ERROR|error)/ { printf "%s%s\n", terminal ? "\r\033[K" : "", $0; fflush() }
        END { if (terminal) printf "\r\033[K" }'
}

pip_install() { "$VENV/bin/python" -m pip install --no-compile "$@" 2>&1 | tee -a "$VENV/install.log"; }

install_lock() {
    local lock=$1
    echo "Installing requirements/$lock"
    pip_install --no-deps -r "requirements/$lock" | account "$(grep -c == "requirements/$lock")" ||
        fail "pip could not install requirements/$lock; its whole output is in $VENV/install.log. Run the same command again to go on."
}

# The CPU build is looked for where pip is set up to look (a mirror, a folder of wheels), then at PyTorch's own index.
install_torch() {
    local file=requirements/torch-$TORCH.txt
    echo "Installing torch ($TORCH)"
    if pip_install -r "$file" -c requirements/lock.txt >"$VENV/torch.log"; then
        return
    fi
    if [[ $TORCH == cpu ]] && pip_install -r "$file" -c requirements/lock.txt --index-url "$CPU_INDEX" | account 1; then
        return
    fi
    grep -E '^(ERROR|error)' "$VENV/torch.log" >&2 || true
    fail "pip could not install $(cat "$file"); its whole output is in $VENV/install.log." \
        "Where $CPU_INDEX cannot be reached, TORCH=gpu installs the build from the package index."
}

[[ -f requirements/torch-$TORCH.txt ]] || fail "TORCH=$TORCH is not known: expected cpu or gpu."
digest() { cat "$@" | sha256sum | cut -c1-16; }
stamp=$VENV/.installed-$(digest requirements/lock.txt "requirements/torch-$TORCH.txt" pyproject.toml)
stamps=("$stamp")
if [[ ${1:-} == dev ]]; then
    stamp=$stamp-dev-$(digest requirements/lock-dev.txt)
    stamps+=("$stamp")
fi
if [[ -e $stamp && -x $VENV/bin/sibol ]]; then
    exit 0
fi

if [[ ! -x $VENV/bin/python ]]; then
    python=$(find_python)
    echo "Making $VENV with $("$python" --version)"
    "$python" -m venv "$VENV"
elif ! usable "$VENV/bin/python"; then
    fail "$VENV holds a Python that is neither 3.11 nor 3.12, or is damaged. Remove it (make clean) and run the same command again."
else
    rm -f "$VENV"/.installed-*
    "$VENV/bin/python" requirements/forget_damaged.py "$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
fi
: >"$VENV/install.log"
started=$SECONDS
install_lock lock.txt
install_torch
if [[ ${1:-} == dev ]]; then
    install_lock lock-dev.txt
fi
pip_install --no-deps --no-build-isolation -e . | account 1 || fail "the project itself could not be installed; see $VENV/install.log."
echo "Compiling Python files, on all cores"
# Left out: test suites inside the packages. The status says only that some template is no valid Python by itself.
"$VENV/bin/python" -m compileall -q -j 0 -x '/(tests?|testing|torchgen)/' "$VENV/lib" >/dev/null 2>&1 || true
"$VENV/bin/python" -m pip check >>"$VENV/install.log" 2>&1 || fail "the installed packages do not fit together; see the end of $VENV/install.log."
touch "${stamps[@]}"
echo "Installed in $((SECONDS - started)) s: $VENV/bin/sibol"
