"""Waiting for what nobody tells."""

import time
from collections.abc import Callable
from threading import Event
from typing import TypeVar

Found = TypeVar("Found")
_LOOK_S = 0.02


def until(look: Callable[[], Found | None], *, timeout_s: float = 90.0) -> Found:
    """What a look finds, as soon as it finds anything; raises AssertionError in the end."""
    end = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < end, "it never came"
        Event().wait(_LOOK_S)
    return found
