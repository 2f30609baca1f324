"""Less noise at start: NeMo, Megatron, Lightning and W&B announce dozens of things that no user can act on."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator

NOISY_LOGGERS = (
    "nemo_logger",
    "lightning",
    "lightning.pytorch",
    "lightning.fabric",
    "pytorch_lightning",
    "megatron",
    "nv_one_logger",
    "torch.distributed",
)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Import heavy libraries without their warnings; SIBOL_VERBOSE=1 keeps them. Errors are never hidden."""
    if os.environ.get("SIBOL_VERBOSE") == "1":
        yield
        return
    os.environ.setdefault("NEMO_TESTING", "0")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        previous = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(previous)
    quiet_loggers()


def quiet_loggers() -> None:
    """Let the libraries' loggers speak of errors only, and drop the warnings that each step would repeat."""
    if os.environ.get("SIBOL_VERBOSE") == "1":
        return
    warnings.filterwarnings("ignore")
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
