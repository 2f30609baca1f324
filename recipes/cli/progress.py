"""Progress of conversions on stderr: a bar with speed and time left on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LINE_EVERY_S = 30.0  # in logs of batch jobs


@contextmanager
def conversion_progress(afterwards: str | None = None) -> Iterator[Callable[[int, int], None]]:
    """Shows calls of (bytes done, bytes in all); the first says what was there already. `afterwards`: what follows when all is written."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        tasks: list[TaskID] = []

        def update(done: int, total: int) -> None:
            if not tasks:
                tasks.append(bar.add_task("writing weights", total=total, completed=done))
            bar.update(tasks[0], completed=done, description=afterwards if afterwards and done == total else "writing weights")

        yield update


class _Lines:
    """One line every half minute."""

    def __init__(self) -> None:
        self._began_s = self._said_s = time.monotonic()
        self._kept: int | None = None

    def __call__(self, done: int, total: int) -> None:
        import typer

        now = time.monotonic()
        if self._kept is None:
            self._kept = done
            if done:
                typer.echo(f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB are there from before", err=True)
        if now - self._said_s < LINE_EVERY_S or done == self._kept:
            return
        self._said_s = now
        speed = (done - self._kept) / (now - self._began_s)
        left_s = (total - done) / speed
        typer.echo(f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB, {speed / 1e6:,.0f} MB/s, {left_s:,.0f} s left", err=True)
