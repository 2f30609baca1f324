# shellcheck shell=bash
# Tokens out of a file that only its owner can read, into the environment of this job. The file is read, never run: what stands
# in it are lines NAME=VALUE, taken literally. No value is ever printed. Sourced, never run.

secret_names=()

# load_secrets FILE: exports what the file holds and adds the names to `secret_names`. An empty FILE means there are none.
load_secrets() {
    local file=$1 line name number=0
    [[ -n $file ]] || return 0
    [[ -f $file ]] || fail "The file of secrets, $file, is not there. Write it (lines such as HF_TOKEN=..., mode 0600), or submit without it."
    [[ -O $file ]] || fail "The file of secrets, $file, belongs to another user. Make one of your own."
    [[ $(stat -Lc %a -- "$file") =~ ^[46]00$ ]] || fail "The file of secrets, $file, can be read by others. Run: chmod 600 ${file@Q}"
    while IFS= read -r line || [[ -n $line ]]; do
        number=$((number + 1))
        line=${line%$'\r'}
        [[ -n $line && $line != '#'* ]] || continue
        [[ $line =~ ^[A-Za-z_][A-Za-z0-9_]*= ]] || fail "Line $number of $file is not NAME=VALUE."
        name=${line%%=*}
        refuse_secret_name "$name" "$number" "$file"
        export "$name=$(unquoted "${line#*=}")"
        secret_names+=("$name")
    done < <(cat -- "$file")
    say "secrets: ${secret_names[*]:-none}"
}

# What decides how programs are found and started is no secret, and must not change half way through a job.
refuse_secret_name() {
    case $1 in
    PATH | HOME | IFS | ENV | BASH* | SHELLOPTS | PS4 | LD_* | PYTHON* | SIBOL_* | SLURM_* | PBS_* | APPTAINER* | SINGULARITY* | ENROOT_*)
        fail "Line $2 of $3 sets $1, which is no secret. Remove the line."
        ;;
    esac
}

# A value without the pair of quotes around it, if there is one.
unquoted() {
    local value=$1
    if [[ ${#value} -ge 2 && ${value:0:1} == "${value: -1}" && ${value:0:1} == [\"\'] ]]; then
        value=${value:1:-1}
    fi
    printf '%s' "$value"
}
