"""Paths of this host that callers name: only what lies below the configured directories.

A file is opened where it really is, and looked at again when it is open: a link that
is changed meanwhile gains nothing.
"""

import os
from collections.abc import Sequence
from pathlib import Path


class OutsideError(Exception):
    """The path is not, or leads out of, a directory that is allowed."""


def is_below(path: str, allowed: Sequence[Path]) -> bool:
    """Whether a path lies below one of some directories, as they are said or really are."""
    return any(
        Path(path).is_relative_to(place)
        for folder in allowed
        for place in (folder, os.path.realpath(folder))
    )


def open_below(path: str, allowed: Sequence[Path]) -> int:
    """A descriptor to read from; never waits for a FIFO. Raises OutsideError or OSError."""
    if not is_below(os.path.normpath(path), allowed):
        raise OutsideError
    real = os.path.realpath(path, strict=True)
    if not is_below(real, allowed):
        raise OutsideError
    descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not is_below(str(Path(f"/proc/self/fd/{descriptor}").readlink()), allowed):
        os.close(descriptor)
        raise OutsideError
    return descriptor
