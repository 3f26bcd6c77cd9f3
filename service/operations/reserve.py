"""Disk space that is kept for the ends of operations.

A disk that is full refuses new operations, and what has begun still has to be
rolled back and its end remembered: the reserve is given up for that, and nothing
new begins until there is room for it again.
"""

import os
from pathlib import Path

RESERVED_BYTES = 4 << 20


class Reserve:
    """A file that takes its room on the disk, if there is any. Not for several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held = False
        self.hold()

    def hold(self) -> bool:
        """Takes the room; False where the disk does not have it."""
        if not self._held:
            self._held = self._allocate()
        return self._held

    def release(self) -> None:
        """Gives the room up."""
        self._path.unlink(missing_ok=True)
        self._held = False

    def _allocate(self) -> bool:
        try:
            descriptor = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        try:
            os.posix_fallocate(descriptor, 0, RESERVED_BYTES)
        except OSError:
            self._path.unlink()
            return False
        finally:
            os.close(descriptor)
        return True
