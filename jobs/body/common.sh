# shellcheck shell=bash
# What every part of the job body uses: saying, failing, checking. Sourced, never run.

say() { printf 'job: %s\n' "$*" >&2; }

fail() {
    printf 'job: error: %s\n' "$*" >&2
    exit 1
}

# require NAME...: each variable is set and not empty.
require() {
    local name
    for name in "$@"; do
        [[ -n ${!name:-} ]] || fail "$name is not set. Jobs get it from the script that \`sibol submit\` writes; use that, or export it."
    done
}

# require_number NAME SMALLEST: the variable is a whole number, and not below the smallest.
require_number() {
    local value=${!1:-}
    if ! [[ $value =~ ^(0|[1-9][0-9]{0,11})$ ]] || ((value < $2)); then fail "$1=$value is not a whole number of $2 or more."; fi
}

# make_folders FOLDER...: whether or not they are there. Said here, because `set -e` does not hold inside conditions.
make_folders() { mkdir -p -- "$@" || fail "${*@Q} cannot be made on $(hostname)."; }

# refuse_newline WHAT TEXT: neither schedulers nor containers carry a line break through.
refuse_newline() {
    [[ $2 != *$'\n'* ]] || fail "$1 holds a line break: ${2@Q}. Rename it."
}
