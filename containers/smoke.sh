#!/usr/bin/env bash
# Inside the image: are the packages those that belong together, does a tiny model train? A few minutes; with a GPU or without.
#
#   containers/run_in_container.sh --image sibol.sif -- bash containers/smoke.sh
#
# Ends with "smoke: ok", or with the first thing that is wrong.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf -- "$folder"' EXIT

python - <<'PYTHON'
import importlib.util
from importlib.metadata import version

import torch

gpus = torch.cuda.device_count()
print(f"smoke: torch {torch.__version__}, CUDA {torch.version.cuda}, {gpus} GPU(s)")
if torch.version.cuda and not gpus:
    print("smoke: torch was built for CUDA but sees no GPU: fine on a login node, not in a job. Is the GPU passed into the container?")
for name in ("transformer_engine", "apex"):
    if importlib.util.find_spec(name):
        __import__(name)
        print(f"smoke: {name} {version(name)}")
    elif gpus:
        raise SystemExit(f"smoke: {name} is missing: on GPUs it belongs to the image. Build it from one of containers/images.yaml.")
    else:
        print(f"smoke: no {name}; without a GPU nothing needs it")
if gpus:
    from packaging.version import Version

    te = Version(version("transformer_engine"))
    if te < Version("2.3"):
        raise SystemExit(f"smoke: Transformer Engine {te} is older than 2.3, from which on megatron-core 0.15 runs all of its layers with it.")
PYTHON
sibol doctor
ranks=$(python -c 'import torch; print(min(2, torch.cuda.device_count()) or 1)')
sibol demo --out "$folder/demo" --ranks "$ranks" train.max_steps=8 schedule.warmup_steps=2 schedule.decay_steps=4
echo "smoke: ok"
