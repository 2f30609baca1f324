"""Child processes that do not outlive the process that started them."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal

_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


def end_with_parent(number: signal.Signals = signal.SIGTERM) -> None:
    """Ask Linux to send this process a signal when its parent dies, however that happens. Called in the child."""
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, number)
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():  # it died before Linux was asked, and no signal will come
        os.kill(os.getpid(), number)
