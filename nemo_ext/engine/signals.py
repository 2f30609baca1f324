"""A stop request from outside: remembered by the signal handler, acted on at the end of a training step."""

from __future__ import annotations

import signal
from types import FrameType

STOP_SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)
_requested: list[int] = []


def catch_stop_signals() -> None:
    """Remember stop signals instead of dying of them. Called first thing in a rank and again once Lightning has set its own."""
    for number in STOP_SIGNALS:
        signal.signal(number, _remember)


def stop_requested() -> bool:
    """Whether a stop signal has arrived in this process."""
    return bool(_requested)


def _remember(number: int, frame: FrameType | None) -> None:
    del frame
    _requested.append(number)
