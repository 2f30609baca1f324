"""One rank of a run: `python -m nemo_ext.engine.worker SETTINGS.yaml`, under torchrun, srun or alone."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from nemo_ext.common.errors import SibolError
from nemo_ext.config import RunConfig, from_yaml
from nemo_ext.engine.launch import ERROR_FILE_VARIABLE, rank_environment
from nemo_ext.engine.signals import catch_stop_signals


def report(message: str) -> None:
    """Leave an error with the launcher, who shows it after torchrun's own account; without a launcher, print it."""
    if ERROR_FILE_VARIABLE in os.environ:
        Path(os.environ[ERROR_FILE_VARIABLE]).write_text(message, encoding="utf-8")
    else:
        print(f"error: {message}", file=sys.stderr)


def run_rank(config: RunConfig) -> int:
    """Train as the rank that the environment says; returns the exit code. User errors are printed once, by rank 0."""
    catch_stop_signals()  # before the slow imports, during which a stop may already be asked for
    os.environ.update(rank_environment(os.environ))
    from nemo_ext import backend
    from nemo_ext.common.quiet import quiet_libraries

    try:
        with quiet_libraries():
            backend.install()
            from nemo_ext.engine.train import train
        train(config, ranks=int(os.environ["WORLD_SIZE"]))
    except SibolError as error:
        if os.environ["RANK"] == "0":
            report(str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(run_rank(from_yaml(sys.argv[1])))
