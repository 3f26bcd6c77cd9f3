"""Places where a daemon waits until a test lets it go on: two pipes each.

daemon   reaches the gate ──▶ GATE         test: reached()
daemon   goes on          ◀── GATE.open    test: end of the block
"""

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TIMEOUT_S = 60.0


class Gate:
    """A gate, from the test's side."""

    def __init__(self, reached: int) -> None:
        self._reached = reached

    def reached(self) -> None:
        """Returns when a daemon stands before it."""
        ready, _, _ = select.select([self._reached], [], [], _TIMEOUT_S)
        assert ready, "nobody came to the gate"


@contextmanager
def gate(folder: Path, name: str) -> Iterator[Gate]:
    """A gate that is shut inside; after it nobody is held there any more."""
    here, opened = folder / name, folder / f"{name}.open"
    os.mkfifo(here)
    os.mkfifo(opened)
    # Both ends, so that nobody waits for the other side to come.
    reached, go_on = os.open(here, os.O_RDWR), os.open(opened, os.O_RDWR)
    try:
        yield Gate(reached)
    finally:
        here.unlink()
        opened.unlink()
        os.write(go_on, b"x")
        # A daemon that stands there has both ends open itself.
        os.close(reached)
        os.close(go_on)


def pass_through(here: Path) -> None:
    """Says that it was reached, and waits until it is open; the daemon's side."""
    opened = os.open(here.with_name(f"{here.name}.open"), os.O_RDWR)
    reached = os.open(here, os.O_RDWR)
    os.write(reached, b"x")
    os.read(opened, 1)
    os.close(reached)
    os.close(opened)
