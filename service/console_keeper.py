"""Keeps console logs within their bounds while no daemon does: `python -m service.console_keeper`.

QEMU appends to them by itself, at a guest's speed, whether or not a daemon runs. This is so
small that it need not be updated or restarted with it. Both may trim at once.
"""

import signal
import threading
from pathlib import Path

import click

from backends.console_log import ConsoleLog

_TRIM_S = 1.0


def trim_all(state_dir: Path) -> list[str]:
    """Gives back what is beyond the bounds; gives what could not be trimmed, and why."""
    failures = []
    for path in state_dir.glob("instances/*/console.*.log"):
        try:
            ConsoleLog(path).trim()
        except OSError as error:
            failures.append(f"{path}: {error.strerror}")
    return failures


@click.command()
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    default=Path("/var/lib/virtrpc"),
    show_default=True,
    help="The daemon's state directory.",
)
def main(state_dir: Path) -> None:
    """Bounds the console logs of guests once a second, until it is told to stop."""
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    known: list[str] = []
    while not told.wait(_TRIM_S):
        failures = trim_all(state_dir)
        for failure in failures:
            if failure not in known:
                click.echo(failure, err=True)
        known = failures


if __name__ == "__main__":
    main()
