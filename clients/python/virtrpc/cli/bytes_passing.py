"""How many bytes have passed: a bar on a terminal, on standard error; nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from virtrpc.cli.session import Session


@contextmanager
def bytes_passing(
    session: Session, what: str, *, total: int, passed: int = 0
) -> Iterator[Callable[[int], None]]:
    """Gives what is to be told of each piece that passes, in bytes.

    `total` of them are expected (0: not known), `passed` went before.
    """
    if session.output.format != "table" or not sys.stderr.isatty():
        yield lambda _count: None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total or None, completed=passed)
        yield lambda count: progress.advance(task, count)
