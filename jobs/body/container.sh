# shellcheck shell=bash
# A command into a container: which runtime, what is mounted, which variables go in, whether there is a GPU. Jobs and
# containers/run_in_container.sh use these same functions. Sourced, never run; needs common.sh.
# shellcheck disable=SC2154 # secret_names is secrets.sh's
#
# Inside, the environment is clean but for the names in containers/env.allow and those of secrets; all pass by name, so no value
# stands on a command line. /tmp is a folder on the node's own disk. The image is read-only.

container_mounts=()  # SRC:DST[:ro], checked
container_command=() # the command with the runtime around it

# choose_runtime WANTED IMAGE: sets `container_runtime` to apptainer, enroot, pyxis or none.
choose_runtime() {
    local wanted=$1 image=$2
    container_runtime=$wanted
    if [[ $wanted == auto ]]; then
        case $image in
        '') container_runtime=none && say "no image: the command runs without a container" ;;
        *.sqsh) container_runtime=enroot ;;
        *.sif) container_runtime=apptainer ;;
        *) if command -v apptainer >/dev/null; then container_runtime=apptainer; else container_runtime=enroot; fi ;;
        esac
    fi
    case $container_runtime in
    none) return ;;
    apptainer | enroot) ;;
    pyxis) [[ -n ${SLURM_JOB_ID:-} ]] || fail "Runtime pyxis is a part of srun, and this is no Slurm job. Choose --runtime enroot or apptainer." ;;
    *) fail "Runtime $wanted is not known: expected auto, apptainer, enroot, pyxis or none." ;;
    esac
    require_runtime "$container_runtime"
    require_image "$container_runtime" "$image"
}

require_runtime() {
    local program=$1 other
    [[ $program == pyxis ]] && program=srun
    command -v "$program" >/dev/null && return
    for other in apptainer enroot; do
        if command -v "$other" >/dev/null; then
            fail "$program is not on the PATH of $(hostname), but $other is. Use --runtime $other, with an image made for it."
        fi
    done
    fail "$program is not on the PATH of $(hostname). Load its module (SIBOL_JOB_MODULES, or \`module load $program\`), or use --runtime none."
}

require_image() {
    local runtime=$1 image=$2
    [[ -n $image ]] || fail "Runtime $runtime needs an image. Build one (containers/build.sh $runtime) and name it: --image FILE."
    refuse_newline "The image" "$image"
    case $runtime:$image in
    apptainer:*.sqsh) fail "$image is an Enroot image. Use --runtime enroot, or build a .sif: containers/build.sh apptainer." ;;
    enroot:*.sif | pyxis:*.sif) fail "$image is an Apptainer image. Use --runtime apptainer, or build a .sqsh: containers/build.sh enroot." ;;
    pyxis:*'#'*) return ;; # in a registry; srun fetches it
    *:docker://*) fail "$image is not fetched by every job anew. Build it once: containers/build.sh $runtime." ;;
    esac
    [[ -e $image ]] || fail "The image $image is not there. Build it (containers/build.sh $runtime), or correct --image."
}

# add_mount SRC:DST[:ro]: checks it and adds it to `container_mounts`.
add_mount() {
    local spec=$1 source target mode rest
    refuse_newline "The mount" "$spec"
    IFS=: read -r source target mode rest <<<"$spec"
    [[ -n $source && -n $target && -z $rest && ($mode == '' || $mode == ro || $mode == rw) ]] ||
        fail "Mount ${spec@Q} is not understood: expected SRC:DST or SRC:DST:ro (a path with a colon cannot be mounted)."
    [[ $source == /* && $target == /* ]] || fail "Mount ${spec@Q}: both paths must be absolute."
    [[ -e $source ]] || fail "Mount ${spec@Q}: $source is not there on $(hostname). Correct the path, or make the folder."
    [[ $mode == ro ]] && spec=$source:$target:ro || spec=$source:$target
    local known
    for known in ${container_mounts[@]+"${container_mounts[@]}"}; do
        [[ $known != "$spec" ]] || return 0
    done
    container_mounts+=("$spec")
}

# name_unmounted WORD...: says which words name a file that the command will not find: a folder that lies, perhaps through a
# symbolic link, where nothing is mounted. Only said, because the image may have it as well.
name_unmounted() {
    local word path mount real
    for word in "$@"; do
        path=${word#*=}
        [[ $path == */* && -e $path ]] || continue
        real=$(realpath -- "$path")
        for mount in ${container_mounts[@]+"${container_mounts[@]}"}; do
            if [[ $real/ == "$(realpath -- "${mount%%:*}")"/* ]]; then continue 2; fi
        done
        say "$path${real:+ (that is, $real)} is not mounted into the container. If the command needs it: --mount, or the site's mounts."
    done
}

# allowed_names FILE: names of exported variables that FILE lets into the container, one a line, and those of secrets.
allowed_names() {
    local file=$1 name pattern patterns=()
    [[ -r $file ]] || fail "The list of variables that containers get, $file, is not there."
    while read -r pattern; do
        [[ -z $pattern || $pattern == '#'* ]] || patterns+=("$pattern")
    done <"$file"
    patterns+=(${secret_names[@]+"${secret_names[@]}"})
    while read -r name; do
        for pattern in "${patterns[@]}"; do
            # shellcheck disable=SC2053 # the right side is a pattern
            if [[ $name == $pattern ]]; then
                [[ ${!name} != *$'\n'* ]] || fail "$name holds a line break, and cannot be passed into a container. Unset or shorten it."
                printf '%s\n' "$name"
                break
            fi
        done
    done < <(compgen -e)
}

# Whether this node has an NVIDIA GPU with its driver: `--nv` and its like are given then, and only then.
has_gpu() { command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; }

# in_container RUNTIME IMAGE SCRATCH ALLOW COMMAND...: sets `container_command` and exports what it needs.
in_container() {
    local runtime=$1 image=$2 scratch=$3 allow=$4
    shift 4
    container_command=("$@")
    [[ $runtime != none ]] || return 0
    local names
    names=$(allowed_names "$allow") || exit 1 # in <(...) it would go unnoticed
    mapfile -t container_names < <(printf '%s' "${names:+$names$'\n'}")
    if [[ $runtime != pyxis ]]; then
        make_folders "$scratch/tmp"
        mount_points_below_tmp "$scratch/tmp"
    fi
    name_unmounted "$@"
    [[ ! -d /dev/infiniband || $runtime == pyxis ]] || add_mount /dev/infiniband:/dev/infiniband
    "with_$runtime" "$image" "$scratch" "$@"
}

# /tmp of the container is a folder of ours; what is mounted below it needs a place there.
mount_points_below_tmp() {
    local mount source target
    for mount in ${container_mounts[@]+"${container_mounts[@]}"}; do
        IFS=: read -r source target _ <<<"$mount"
        if [[ $target == /tmp/* && -d $source ]]; then
            make_folders "$1/${target#/tmp/}"
        fi
    done
}

with_apptainer() {
    local image=$1 scratch=$2 name mount source target mode
    shift 2
    export APPTAINER_CACHEDIR=$scratch/apptainer/cache APPTAINER_TMPDIR=$scratch/apptainer/tmp
    make_folders "$APPTAINER_CACHEDIR" "$APPTAINER_TMPDIR"
    for name in "${container_names[@]}"; do
        export "APPTAINERENV_$name=${!name}"
    done
    container_command=(apptainer exec --cleanenv --containall --workdir "$scratch" --pwd "$PWD")
    if has_gpu; then container_command+=(--nv); fi
    for mount in ${container_mounts[@]+"${container_mounts[@]}"}; do
        IFS=: read -r source target mode <<<"$mount"
        # --bind would split at commas; --mount reads one line of CSV, in which quotes are doubled
        container_command+=(--mount "type=bind,$(csv_field "source=$source"),$(csv_field "destination=$target")${mode:+,ro}")
    done
    container_command+=("$image" "$@")
}

csv_field() { printf '"%s"' "${1//\"/\"\"}"; }

with_enroot() {
    local image=$1 scratch=$2 name mount source target mode
    shift 2
    export ENROOT_DATA_PATH=$scratch/enroot/data ENROOT_CACHE_PATH=$scratch/enroot/cache
    export ENROOT_TEMP_PATH=$scratch/enroot/tmp ENROOT_RUNTIME_PATH=$scratch/enroot/run
    # enroot would mount the home folder, and with it whatever Python packages lie there
    export ENROOT_MOUNT_HOME=no
    make_folders "$ENROOT_DATA_PATH" "$ENROOT_CACHE_PATH" "$ENROOT_TEMP_PATH" "$ENROOT_RUNTIME_PATH"
    has_gpu || export NVIDIA_VISIBLE_DEVICES=void
    container_command=(enroot start)
    for name in "${container_names[@]}"; do
        container_command+=(--env "$name")
    done
    has_gpu || container_command+=(--env NVIDIA_VISIBLE_DEVICES)
    for mount in "$scratch/tmp:/tmp" ${container_mounts[@]+"${container_mounts[@]}"}; do
        IFS=: read -r source target mode <<<"$mount"
        mount=$(fstab_field "$source"):$(fstab_field "$target")
        container_command+=(--mount "$mount${mode:+:none:x-create=auto,rbind,ro}")
    done
    # enroot has no option for the working folder
    # shellcheck disable=SC2016 # expanded inside
    container_command+=("$image" bash -c 'cd -- "$1" && shift && exec "$@"' bash "$PWD" "$@")
}

# A path as fstab(5) wants it: blanks and backslashes as octal numbers.
fstab_field() {
    local path=${1//\\/\\134}
    path=${path// /\\040}
    printf '%s' "${path//$'\t'/\\011}"
}

with_pyxis() {
    local image=$1 mount mounts=()
    shift 2
    for mount in ${container_mounts[@]+"${container_mounts[@]}"}; do
        [[ $mount != *,* ]] || fail "Mount ${mount@Q}: pyxis separates mounts by commas, so no path may hold one. Rename it."
        mounts+=("$mount")
    done
    container_options=("--container-image=$image" "--container-workdir=$PWD" --no-container-mount-home)
    container_options+=("--container-mounts=$(IFS=,; printf '%s' "${mounts[*]}")")
    container_options+=("--container-env=$(IFS=,; printf '%s' "${container_names[*]}")")
    container_command=("$@")
}
