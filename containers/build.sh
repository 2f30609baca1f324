#!/usr/bin/env bash
# Builds the training image from one of images.yaml and our lock.
#
#   containers/build.sh apptainer|enroot [--image NAME] [--output FILE] [--dry-run]
#
# FILE is containers/sibol.sif or containers/sibol.sqsh if not said, where jobs look for it. Needs the internet, some 60 GB of space
# and half an hour: a login node, or a job where compute nodes have internet. Layers are kept and unpacked in $TMPDIR, which should
# be a local disk. Enroot takes an image by its tag, Apptainer by its digest.
set -euo pipefail
project=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)

fail() {
    printf 'build: error: %s\n' "$*" >&2
    exit 1
}

# setting KEY: of the chosen image in images.yaml
setting() {
    awk -v image="$image" -v key="$1" '
        /^  [^ #].*:$/ { inside = ($1 == image ":") }
        inside && $1 == key ":" { gsub(/"/, "", $2); print $2 }' "$project/containers/images.yaml"
}

run() {
    printf 'build: %s\n' "${*@Q}" >&2
    if [[ -z $dry_run ]]; then "$@"; fi
}

build_apptainer() {
    export APPTAINER_CACHEDIR=${APPTAINER_CACHEDIR:-$work/cache} APPTAINER_TMPDIR=${APPTAINER_TMPDIR:-$work}
    run apptainer build --build-arg "source=$work/source" --build-arg "base=$(setting repository)@$(setting digest)" "$output" "$project/containers/nemo.def"
}

build_enroot() {
    local repository name=sibol-build-$$
    repository=$(setting repository)
    export ENROOT_CACHE_PATH=${ENROOT_CACHE_PATH:-$work/cache} ENROOT_DATA_PATH=$work/data ENROOT_TEMP_PATH=$work ENROOT_RUNTIME_PATH=$work/run
    run mkdir -p "$ENROOT_CACHE_PATH" "$ENROOT_DATA_PATH" "$ENROOT_RUNTIME_PATH"
    run enroot import --output "$work/base.sqsh" "docker://${repository/\//#}:$(setting tag)"
    run enroot create --name "$name" "$work/base.sqsh"
    run cp -a "$work/source" "$work/data/$name/opt/sibol-source"
    run enroot start --root --rw "$name" bash /opt/sibol-source/containers/install_into_image.sh /opt/sibol-source
    run rm -rf "$work/data/$name/opt/sibol-source"
    run enroot export --output "$output" "$name"
}

[[ $# -gt 0 ]] || fail "usage: containers/build.sh apptainer|enroot [--image NAME] [--output FILE] [--dry-run]"
runtime=$1 image=$(awk '$1 == "default:" { print $2 }' "$project/containers/images.yaml") output='' dry_run=''
shift
while [[ $# -gt 0 ]]; do
    case $1 in
    --image) image=${2:?--image needs a name} && shift 2 ;;
    --output) output=${2:?--output needs a file} && shift 2 ;;
    --dry-run) dry_run=yes && shift ;;
    *) fail "unknown option $1. Known: --image NAME, --output FILE, --dry-run." ;;
    esac
done
case $runtime in
apptainer) output=${output:-$project/containers/sibol.sif} ;;
enroot) output=${output:-$project/containers/sibol.sqsh} ;;
*) fail "unknown runtime $runtime: expected apptainer or enroot." ;;
esac
output=$(realpath -m -- "$output")
[[ -n $(setting digest) ]] || fail "containers/images.yaml has no image $image. It has: $(sed -n 's/^  \([^ #].*\):$/\1/p' "$project/containers/images.yaml" | paste -sd' ')."
[[ ! -e $output ]] || fail "$output already exists. Choose another --output, or remove it."
[[ -n $dry_run ]] || command -v "$runtime" >/dev/null || fail "$runtime is not on the PATH. Load its module (module load $runtime)."
work=$(mktemp -d "${TMPDIR:-/tmp}/sibol-build.XXXXXXXX")
trap 'rm -rf -- "$work"' EXIT
mkdir -p "$work/source/containers" # not the whole folder, in which environments, runs and other images may lie
cp -a "$project"/{pyproject.toml,README.md,LICENSE,requirements,nemo_ext,data_tools,evaluation,recipes,jobs} "$work/source"
cp -a "$project/containers/install_into_image.sh" "$work/source/containers"
"build_$runtime"
printf 'build: %s. Check it where there is a GPU: containers/run_in_container.sh --image %q -- bash containers/smoke.sh\n' "$output" "$output" >&2
