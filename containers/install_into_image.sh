#!/usr/bin/env bash
# Inside an image that is being built, as root: our lock and the project into its Python. nemo.def and build.sh call it.
#
#   install_into_image.sh SOURCE
#
# What NVIDIA built for each other stays as it is: torch, Transformer Engine and Apex are compared before and after.
set -euo pipefail
source_folder=$1
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
# The image constrains packages to the versions it came with; the lock has tested others of some.
export PIP_CONSTRAINT=

fail() {
    printf 'install: %s\n' "$*" >&2
    exit 1
}

versions() {
    python - <<'PYTHON'
from importlib.metadata import PackageNotFoundError, version

for name in ("torch", "transformer_engine", "apex", "triton"):
    try:
        print(name, version(name))
    except PackageNotFoundError:
        print(name, "-")
PYTHON
}

python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' ||
    fail "the image has $(python --version), but the lock is for Python 3.11 and 3.12. Choose another image of containers/images.yaml."
before=$(versions)
[[ $before != *"torch -"* ]] || fail "the image has no torch. Choose one of containers/images.yaml."
printf 'as it came:\n%s\n' "$before"
python -m pip install --no-cache-dir --no-deps --no-compile -r "$source_folder/requirements/lock.txt"
python -m pip install --no-cache-dir --no-deps --no-compile --no-build-isolation "$source_folder"
after=$(versions)
[[ $before == "$after" ]] || fail "the lock replaced what the image brought. Before: ${before//$'\n'/, }. After: ${after//$'\n'/, }."
python -m compileall -q -j 0 "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" >/dev/null 2>&1 || true
sibol --version
